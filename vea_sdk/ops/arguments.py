"""The arguments of the operators and their checks: each message names the argument, its value and the remedy.

The checks guard the plain-torch path and the traced one; the compiled kernels repeat them in C++, where they
cost nothing.
"""

from __future__ import annotations

import math
import numbers
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import InvalidInputError

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
INTEGERS = (torch.int32, torch.int64)


class Arguments(NamedTuple):
    """What ``image_attention`` takes, in the order of its schema; see there for the meaning."""

    query: Tensor
    key: Tensor
    image_index: Tensor
    query_index: Tensor | None
    scale: float
    key_start: Tensor | None
    key_stop: Tensor | None
    mask: Tensor | None
    softcap: float | None
    window: int | None
    sinks: Tensor | None
    position_bias: Tensor | None
    weight: float
    top_k: int | None
    per_head: bool


def check_types(query: object, key: object, image_index: object, per_head: object) -> None:
    """Of what is looked at before anything else is checked. Every call comes by: no message is written in vain."""
    tensors = isinstance(query, Tensor) and isinstance(key, Tensor) and isinstance(image_index, Tensor)
    if tensors and isinstance(per_head, bool):
        return
    for name, value in (("query", query), ("key", key), ("image_index", image_index)):
        require_tensor(name, value)
    raise InvalidInputError(f"per_head = {per_head!r}; give True or False")


def require_tensor(name: str, value: object) -> None:
    if not isinstance(value, Tensor):
        raise InvalidInputError(f"{name} is {type(value)}; give a torch.Tensor")


def default_scale(query: Tensor) -> float:
    """D**-0.5"""
    shape = query.shape
    if not shape or shape[-1] == 0:
        raise InvalidInputError(f"query has shape {list(shape)}; it needs at least one channel")
    scale: float = shape[-1] ** -0.5
    return scale


def check_image_attention(a: Arguments, out: Tensor | None) -> None:
    """Everything that shapes, dtypes and devices can tell; no value on a device is read."""
    _check_tensor("query", a.query, a.query, FLOATS, None, None, None, None)
    batch, heads, queries, dim = a.query.shape
    _check_tensor("key", a.key, a.query, (a.query.dtype,), (batch,), None, None, (dim,))
    kv_heads, keys = a.key.shape[1], a.key.shape[2]
    _require(
        kv_heads > 0 and heads > 0 and heads % kv_heads == 0,
        f"query has {heads} heads, key {kv_heads}; the first must be a multiple of the second",
    )
    _require(
        queries > 0 and keys > 0 and dim > 0,
        f"query {list(a.query.shape)} and key {list(a.key.shape)} need at least one position and one channel",
    )
    _check_tensor("image_index", a.image_index, a.query, INTEGERS, (batch,), None)
    for name in ("query_index", "key_start", "key_stop"):
        _check_tensor(name, getattr(a, name), a.query, INTEGERS, (batch,))
    for name, dtypes in (("mask", (*FLOATS, torch.bool)), ("position_bias", FLOATS)):
        bias: Tensor | None = getattr(a, name)
        _check_tensor(name, bias, a.query, dtypes, (batch, 1), (heads, 1), (queries, 1), None)
        if bias is not None:
            _require(bias.shape[3] >= keys, f"{name} covers {bias.shape[3]} keys, but key holds {keys}")
    _check_tensor("sinks", a.sinks, a.query, FLOATS, (heads,))
    _require_number("scale", a.scale)
    _require_number("weight", a.weight)
    if a.softcap is not None:
        _require_number("softcap", a.softcap)
        _require(
            a.softcap > 0 and math.isfinite(a.softcap),
            f"softcap = {a.softcap}; give a positive number or None",
        )
    if a.window is not None:
        _require_integer("window", a.window)
        _require(a.window > 0, f"window = {a.window}; give a positive number of keys or None")
    tokens = a.image_index.shape[1]
    if out is not None:
        shape = ((batch,), (heads,), (tokens,)) if a.per_head else ((batch,), (tokens,))
        _check_tensor("out", out, a.query, (torch.float32,), *shape)
        _require(
            tokens < 2 or out.stride(-1) == 1,
            f"out has strides {out.stride()}; its last dimension must be contiguous",
        )
        _check_rows_apart(out)
    if a.top_k is not None:
        _check_k("top_k", a.top_k, tokens)


def check_indices(a: Arguments) -> None:
    """The values of the indices, where they lie in host memory."""
    _check_range("image_index", a.image_index, -1, a.key.shape[2])
    _check_range("query_index", a.query_index, 0, a.query.shape[2])


def check_stats(stats: Tensor, query: Tensor) -> None:
    _check_tensor("stats", stats, query, (torch.float32,), (query.shape[0],), (4,))
    _require(stats.is_contiguous(), f"stats has strides {stats.stride()}; it must be contiguous")


def check_topk_mask(scores: Tensor, k: int) -> None:
    _check_tensor("scores", scores, scores, FLOATS, None, None)
    _check_k("k", k, scores.shape[1])


def _check_rows_apart(out: Tensor) -> None:
    """Two rows in the same place would be added to twice. Nested layouts only, which is all that slicing makes."""
    if out.numel() == 0:
        return
    extent = out.shape[-1]
    for stride, size in sorted(zip(out.stride()[:-1], out.shape[:-1], strict=True)):
        if size > 1:
            _require(
                stride >= extent,
                f"out has shape {list(out.shape)} and overlapping rows; give each its own memory",
            )
            extent += stride * (size - 1)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise InvalidInputError(message)


def _require_number(name: str, value: object) -> None:
    _require(isinstance(value, (numbers.Real, torch.SymFloat, torch.SymInt)), f"{name} = {value!r}; give a number")


def _require_integer(name: str, value: object) -> None:
    whole = isinstance(value, (numbers.Integral, torch.SymInt)) and not isinstance(value, bool)
    _require(whole, f"{name} = {value!r}; give an integer")


def _check_tensor(
    name: str,
    tensor: Tensor | None,
    like: Tensor,
    dtypes: tuple[torch.dtype, ...],
    *shape: tuple[int, ...] | None,
) -> None:
    """Device, dtype and, per dimension, the sizes allowed (None: any)."""
    if tensor is None:
        return
    require_tensor(name, tensor)
    _require(
        tensor.device == like.device,
        f"{name} is on {tensor.device}, query on {like.device}; move it with {name}.to({str(like.device)!r})",
    )
    _require(tensor.dtype in dtypes, f"{name} is {tensor.dtype}; allowed: {', '.join(map(str, dtypes))}")
    found = list(tensor.shape)
    _require(len(found) == len(shape), f"{name} has shape {found}; it needs {len(shape)} dimensions")
    for i, allowed in enumerate(shape):
        _require(
            allowed is None or any(found[i] == size for size in allowed),
            f"{name} has shape {found}; dimension {i} must be {' or '.join(map(str, allowed or ()))}",
        )


def _check_range(name: str, index: Tensor | None, low: int, stop: int) -> None:
    if index is None or index.device.type != "cpu" or index.numel() == 0:
        return
    smallest, largest = (int(v) for v in index.aminmax())
    worst = smallest if smallest < low else largest
    _require(low <= smallest and largest < stop, f"{name} holds {worst}; allowed: {low} to {stop - 1}")


def _check_k(name: str, k: int, tokens: int) -> None:
    _require_integer(name, k)
    _require(0 <= k <= tokens, f"{name} = {k}, but there are {tokens} tokens; choose 0 to {tokens}")
