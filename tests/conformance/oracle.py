"""Attention rows from two sources that share no code with the capture: the eager modules' own weights, and a float64
softmax of the very tensors that ``scaled_dot_product_attention`` was called with."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import cycle
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

Rows = dict[int, list[Tensor]]
"""Layer -> per forward pass the head-averaged last row over all keys of that call, [B, K]."""


@contextmanager
def eager_rows(model: Any, modules: Mapping[int, nn.Module], weights_at: int = 1) -> Iterator[Rows]:
    """Run the model eagerly inside; the rows are what its attention modules return beside their output, in
    ``output[weights_at]``."""
    rows: Rows = {layer: [] for layer in modules}
    before = [(config, config._attn_implementation_internal) for config in configurations(model)]
    handles = []
    for module, layers in runs(modules).items():

        def keep(module: nn.Module, args: Any, output: Any, layers: Iterator[int] = layers) -> None:
            rows[next(layers)].append(output[weights_at][:, :, -1].float().mean(1))

        handles.append(module.register_forward_hook(keep))
    try:
        for config, _ in before:
            config._attn_implementation_internal = "eager"
        yield rows
    finally:
        for config, implementation in before:
            config._attn_implementation_internal = implementation
        for handle in handles:
            handle.remove()


def runs(modules: Mapping[int, nn.Module]) -> dict[nn.Module, Iterator[int]]:
    """Each module -> its layers in turn, over and over: a looped decoder runs it once for each in every pass."""
    layers: dict[nn.Module, list[int]] = {}
    for layer, module in modules.items():
        layers.setdefault(module, []).append(layer)
    return {module: cycle(numbers) for module, numbers in layers.items()}


def configurations(model: nn.Module) -> list[Any]:
    """Every configuration in the model that names an attention; some models refuse set_attn_implementation."""
    configs = [getattr(module, "config", None) for module in model.modules()]
    named = [config for config in configs if getattr(config, "_attn_implementation_internal", None) is not None]
    return list({id(config): config for config in named}.values())


@contextmanager
def float64_rows(modules: Mapping[int, nn.Module]) -> Iterator[Rows]:
    """Run the model inside; the rows are computed in float64 from the q and k of its attention calls."""
    rows: Rows = {layer: [] for layer in modules}
    running: list[tuple[int, int]] = []  # (layer, tokens fed) of the attention module that runs
    masks: list[Any] = []  # the mask it was given, where it computes attention by itself
    handles = []
    for module, layers in runs(modules).items():

        def enter(module: nn.Module, args: Any, kwargs: Any, layers: Iterator[int] = layers) -> None:
            hidden = args[0] if args else kwargs["hidden_states"]
            running.append((next(layers), hidden.shape[1]))
            given = inspect.signature(module.forward).bind_partial(*args, **kwargs).arguments
            cross = given.get("encoder_hidden_states") is not None
            masks[:] = [given.get("encoder_attention_mask" if cross else "attention_mask")]

        handles.append(module.register_forward_pre_hook(enter, with_kwargs=True))
        handles.append(module.register_forward_hook(lambda *_: running.clear(), always_call=True))
    sdpa, matmul = torch.nn.functional.scaled_dot_product_attention, torch.matmul

    def read_matmul(query: Tensor, key: Tensor, *args: Any, **options: Any) -> Tensor:
        """The first product in a module without an attention function is q · kᵀ; its scale is the usual one."""
        if running and query.dim() == 4 and owns_attention(modules[running[-1][0]]) and masks:
            rows[running[-1][0]].append(row(query, key.mT, masks.pop(), None, False))
        return matmul(query, key, *args, **options)

    def read_sdpa(query: Tensor, key: Tensor, value: Tensor, attn_mask: Any = None, *args: Any, **options: Any) -> Any:
        if running:
            layer, tokens = running[-1]
            # One token of several heads that share a key may come as so many queries of one head.
            last = query.shape[-2] if tokens == 1 else 1
            causal = options.get("is_causal", False)
            rows[layer].append(row(query, key, attn_mask, options.get("scale"), causal, last))
        return sdpa(query, key, value, attn_mask, *args, **options)

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(torch.nn.functional, "scaled_dot_product_attention", read_sdpa))
        stack.enter_context(mock.patch.object(torch, "matmul", read_matmul))
        for name in {type(module).__module__ for module in modules.values()}:
            eager = getattr(sys.modules[name], "eager_attention_forward", None)
            if eager is not None:
                stack.enter_context(
                    mock.patch.object(sys.modules[name], "eager_attention_forward", eager_reader(eager, running, rows))
                )
        try:
            yield rows
        finally:
            for handle in handles:
                handle.remove()


def owns_attention(module: nn.Module) -> bool:
    """Whether the module multiplies q and k itself, by its own code."""
    return "get_interface" not in inspect.unwrap(module.forward).__code__.co_names


def eager_reader(eager: Any, running: list[tuple[int, int]], rows: Rows) -> Any:
    """For attention that no SDPA serves (sinks, softcap): the same formula from the arguments of the eager function."""

    def read_eager(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, *args: Any, **options: Any
    ) -> Any:
        if running:
            scale = options["scaling"] if "scaling" in options else args[0] if args else None
            extras = {name: options.get(name) for name in ("softcap", "position_bias")}
            sinks = options.get("s_aux", options.get("sinks"))
            sinks = getattr(module, "sinks", None) if sinks is None else sinks
            rows[running[-1][0]].append(row(query, key, attention_mask, scale, False, sinks=sinks, **extras))
        return eager(module, query, key, value, attention_mask, *args, **options)

    return read_eager


def row(
    query: Tensor,
    key: Tensor,
    mask: Tensor | None,
    scale: float | None,
    causal: bool,
    last: int = 1,
    softcap: float | None = None,
    position_bias: Tensor | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """softmax(scale · q · kᵀ + mask) of the last query, averaged over heads, in float64: [B, K]."""
    length, keys = query.shape[-2], key.shape[-2]
    key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
    scores = query[:, :, -last:].double() @ key.double().mT
    scores = scores * (query.shape[-1] ** -0.5 if scale is None else scale)
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if position_bias is not None:
        scores = scores + position_bias[:, :, -last:, :keys].double()
    if mask is not None:
        seen = mask[:, :, -last:, :keys]
        scores = scores.masked_fill(~seen, -torch.inf) if seen.dtype == torch.bool else scores + seen.double()
    elif causal:  # SDPA aligns query and key at the top left: its last query sees as many keys as there are queries
        scores[..., length:] = -torch.inf
    if sinks is not None:
        per_query = sinks.dim() == 4  # [B, H, Q, 1], otherwise one per head
        column = sinks[:, :, -last:] if per_query else sinks.reshape(1, -1, 1, 1)
        column = column.double().expand(*scores.shape[:3], 1)
        return torch.cat([scores, column], -1).softmax(-1)[..., :-1].mean((1, 2))
    return scores.softmax(-1).mean((1, 2))
