"""``image_attention``: schema, shape rule and dispatch side by side."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.library import fallthrough_kernel, register_fake

from . import plain
from .arguments import Arguments, check_image_attention, check_indices, check_stats, check_types, default_scale
from .dispatch import kernels_for, on_device_of
from .library import LIBRARY


def image_attention(
    query: Tensor,
    key: Tensor,
    image_index: Tensor,
    query_index: Tensor | None = None,
    *,
    scale: float | None = None,
    key_start: Tensor | None = None,
    key_stop: Tensor | None = None,
    mask: Tensor | None = None,
    softcap: float | None = None,
    window: int | None = None,
    sinks: Tensor | None = None,
    position_bias: Tensor | None = None,
    out: Tensor | None = None,
    weight: float = 1.0,
    top_k: int | None = None,
    per_head: bool = False,
    stats: Tensor | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    r"""Head-averaged attention of one query row over the image tokens (arXiv 2510.17771, Section 3).

    .. math::
        ā_j = \frac{1}{H_q} \sum_h \frac{\exp s_h(t_j)}{\exp σ_h + \sum_{t \text{ visible}} \exp s_h(t)}

        s_h(t) = c \tanh(\mathrm{scale} \; q_h · k_{g(h)}(t) / c) + \mathrm{bias}_h(t) + \mathrm{mask}_h(t)

    Each head is normalised over *all* keys the query may see, then the heads are averaged; the image part is
    not renormalised. Sums run in float32. Without softcap (c), sinks (σ), bias and mask their terms vanish.

    Args:
        query: [B, Hq, Lq, D] float32, float16 or bfloat16, after rotary embedding; one row of it is read.
        key: [B, Hkv, Lk, D], same dtype, Hq a multiple of Hkv, any strides with D contiguous; never copied.
        image_index: [B, M] int32 or int64 key positions of the image tokens; -1 marks padding and scores 0.
        query_index: [B] row of ``query`` to read; default the last.
        scale: factor on q·k; default D**-0.5.
        key_start, key_stop: [B] keys start ≤ t < stop are valid (cut to 0..Lk); default all.
        mask: [B|1, Hq|1, Lq|1, ≥Lk] bool (True = may look) or additive float, where -inf and the dtype's
            lowest finite number both mean "may not". A masked key is excluded whatever it holds, even NaN.
        softcap: c > 0.
        window: only the last ``window`` valid keys count: t ≥ key_stop - window.
        sinks: [Hq] logits that join the denominator only.
        position_bias: [B|1, Hq|1, Lq|1, ≥Lk] float, added after the softcap.
        out: float32 of the result's shape, rows of any stride: out += weight·scores, and it is returned. It must not
            share memory with another argument.
        weight: factor on the scores, with and without ``out``.
        top_k: also return the mask of the k largest returned scores (of their head mean with ``per_head``);
            ties go to the lower index, NaN and -1 positions are never selected.
        per_head: keep the heads apart.
        stats: [B, 4] float32, contiguous; filled with four figures of ā, before ``weight`` and ``out``, heads
            averaged: image mass Σ_j ā_j, text mass (ā over the other visible keys), peak max_j p_j and entropy
            -Σ_j p_j ln p_j of the renormalised image row p = ā / image mass. Peak and entropy are NaN where the
            image mass is 0; a token that is listed twice counts twice.

    Returns:
        float32 [B, M], or [B, Hq, M] with ``per_head``; with ``top_k`` a pair (scores, bool [B, M]).
        A row that may see no key at all, or meets NaN in a visible key, is NaN at every image token, never
        zero. An image token outside the visible keys has probability 0. Not differentiable.

    Raises:
        InvalidInputError: shapes, dtypes, strides or options that do not fit; on the CPU also an index
            outside the keys (on a GPU, where looking would stall it, such an index gives NaN).
    """
    check_types(query, key, image_index, per_head)
    if scale is None:
        scale = default_scale(query)
    a = Arguments(
        query, key, image_index, query_index, scale, key_start, key_stop, mask, softcap, window, sinks,
        position_bias, weight, top_k, per_head,
    )  # fmt: skip
    if type(query) is Tensor and not torch.compiler.is_compiling():
        scores, chosen = _run(a, out, stats)  # past torch's dispatcher, which costs more than a small kernel
        for written in (out, stats):
            if written is not None:  # which the dispatcher would have told autograd
                torch.autograd.graph.increment_version(written)
        return scores if chosen is None else (scores, chosen)
    figures: Tensor
    if out is None:
        scores, chosen, figures = torch.ops.vea_sdk.image_attention(*a, stats is not None)
    else:
        chosen, figures = torch.ops.vea_sdk.image_attention_(out, *a, stats is not None)
        scores = out
    if stats is not None:
        if not torch.compiler.is_compiling():  # a tracer cannot build the messages
            check_stats(stats, query)
        stats.copy_(figures)
    return scores if top_k is None else (scores, chosen)


_SCHEMA = (
    "Tensor query, Tensor key, Tensor image_index, Tensor? query_index, float scale, Tensor? key_start, "
    "Tensor? key_stop, Tensor? mask, float? softcap, int? window, Tensor? sinks, Tensor? position_bias, "
    "float weight, SymInt? top_k, bool per_head, bool stats"
)
LIBRARY.define(f"image_attention({_SCHEMA}) -> (Tensor, Tensor, Tensor)")
LIBRARY.define(f"image_attention_(Tensor(a!) out, {_SCHEMA}) -> (Tensor, Tensor)")


def _room(a: Arguments, out: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Memory for the scores (``out`` where it is given) and for the mask of the top k."""
    batch, tokens = a.image_index.shape
    shape = (batch, a.query.shape[1], tokens) if a.per_head else (batch, tokens)
    scores = a.query.new_empty(shape, dtype=torch.float32) if out is None else out
    return scores, None if a.top_k is None else a.query.new_empty((batch, tokens), dtype=torch.bool)


def _run(a: Arguments, out: Tensor | None, stats: Tensor | None) -> tuple[Tensor, Tensor | None]:
    kernels = kernels_for(a.query)
    if kernels is not None and a.query.dim() == a.key.dim() == 4 and a.image_index.dim() == 2:
        if a.query.is_cpu and a.query.shape[3] <= kernels.max_dim_cpu:
            scores, chosen = _room(a, out)
            kernels.image_attention_cpu(a, scores, out is not None, chosen, stats, torch.get_num_threads())
            return scores, chosen
        heads, dim = a.query.shape[1], a.query.shape[3]
        if a.query.is_cuda and dim <= kernels.max_dim_cuda and heads <= kernels.max_heads_cuda:
            return _run_cuda(kernels, a, out, stats)
    check_image_attention(a, out)
    check_indices(a)
    if stats is not None:
        check_stats(stats, a.query)
    with torch.no_grad():
        return plain.image_attention(a, out, torch.promote_types(a.query.dtype, torch.float32), stats)


def _run_cuda(kernels: Any, a: Arguments, out: Tensor | None, stats: Tensor | None) -> tuple[Tensor, Tensor | None]:
    with on_device_of(a.query):
        scores, chosen = _room(a, out)
        stream = torch.cuda.current_stream().cuda_stream
        kernels.image_attention_cuda(a, scores, out is not None, chosen, stats, stream)
    return scores, chosen


# Operators of torch return the same number of tensors always: what was not asked for has no columns.


def _traced_outputs(a: Arguments, out: Tensor | None, stats: bool) -> tuple[Tensor, Tensor, Tensor]:
    scores, chosen = _room(a, out)
    batch = a.image_index.shape[0]
    if chosen is None:
        chosen = scores.new_empty((batch, 0), dtype=torch.bool)
    return scores, chosen, scores.new_empty((batch, 4 if stats else 0))


def _traced(arguments: tuple[Any, ...], out: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    *fields, stats = arguments
    a = Arguments(*fields)
    figures = a.query.new_empty((a.image_index.shape[0], 4 if stats else 0), dtype=torch.float32)
    scores, chosen = _run(a, out, figures if stats else None)
    if chosen is None:
        chosen = figures.new_empty((figures.shape[0], 0), dtype=torch.bool)
    return scores, chosen, figures


@register_fake("vea_sdk::image_attention")  # type: ignore[untyped-decorator]
def _fake(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    *fields, stats = arguments
    a = Arguments(*fields)
    check_image_attention(a, None)
    return _traced_outputs(a, None, stats)


@register_fake("vea_sdk::image_attention_")  # type: ignore[untyped-decorator]
def _fake_out(out: Tensor, *arguments: Any) -> tuple[Tensor, Tensor]:
    *fields, stats = arguments
    a = Arguments(*fields)
    check_image_attention(a, out)
    return _traced_outputs(a, out, stats)[1:]


def _impl(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    return _traced(arguments, None)


def _impl_out(out: Tensor, *arguments: Any) -> tuple[Tensor, Tensor]:
    return _traced(arguments, out)[1:]


LIBRARY.impl("image_attention", _impl, "CompositeExplicitAutograd")
LIBRARY.impl("image_attention_", _impl_out, "CompositeExplicitAutograd")
LIBRARY.impl("image_attention", fallthrough_kernel, "Autograd")
LIBRARY.impl("image_attention_", fallthrough_kernel, "Autograd")
