"""The operators in plain torch with float64 inside: slow, obvious, and the truth the kernels are held to."""

from __future__ import annotations

import torch
from torch import Tensor

from . import plain
from .arguments import (
    Arguments,
    check_image_attention,
    check_indices,
    check_stats,
    check_topk_mask,
    check_types,
    default_scale,
)

__all__ = ["image_attention", "topk_mask"]


@torch.no_grad()
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
    """Same arguments, result and errors as :func:`vea_sdk.ops.image_attention`."""
    check_types(query, key, image_index, per_head)
    if scale is None:
        scale = default_scale(query)
    a = Arguments(
        query, key, image_index, query_index, scale, key_start, key_stop, mask, softcap, window, sinks,
        position_bias, weight, top_k, per_head,
    )  # fmt: skip
    check_image_attention(a, out)
    check_indices(a)
    if stats is not None:
        check_stats(stats, query)
    scores, chosen = plain.image_attention(a, out, torch.float64, stats)
    return scores if chosen is None else (scores, chosen)


@torch.no_grad()
def topk_mask(scores: Tensor, k: int) -> Tensor:
    """Same arguments, result and errors as :func:`vea_sdk.ops.topk_mask`."""
    check_topk_mask(scores, k)
    return plain.topk_mask(scores, k)
