"""From an attention function's arguments to an ``AttentionCall``, and from eager weights to a row.

Three sources lead here: Transformers' attention functions, a direct ``scaled_dot_product_attention``, and the weights
that an eager attention returns. Each keeps the model's own scaling, mask, softcap, sinks, window and position bias. The
fourth, an adapter, makes its ``AttentionCall`` itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vea_sdk import ops
from vea_sdk.adapters import AttentionCall
from vea_sdk.errors import CaptureError


def from_interface(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    mask: Any,
    options: Mapping[str, Any],
    implementation: str | None,
) -> AttentionCall:
    """Read a call ``attention_interface(module, query, key, value, mask, **options)`` of Transformers."""
    if options.get("cache") is not None:
        raise CaptureError(
            "continuous batching (generate_batch) feeds token ids without pictures, keeps keys in a paged cache and "
            "runs in a thread of its own; capture does not read it. Use model.generate()."
        )
    if mask is not None and not isinstance(mask, Tensor):
        raise CaptureError(
            f"the mask of the attention implementation {implementation!r} is a {type(mask).__name__}, which holds no "
            "values to read. Load the model with attn_implementation='sdpa'."
        )
    flash = implementation is not None and "flash" in implementation
    if mask is not None and mask.dim() == 2:  # flash attention gets the padding mask [B, Lk] as it is
        mask = mask.bool()[:, None, None, -key.shape[-2] :]
    is_causal = options.get("is_causal")
    if is_causal is None:
        is_causal = getattr(module, "is_causal", True)
    return AttentionCall(
        query=_dense(query),
        key=_dense(key),
        mask=mask,
        causal=bool(is_causal) and query.shape[-2] > 1,
        scale=options.get("scaling"),
        softcap=options.get("softcap"),
        # Every other implementation finds the window already folded into its mask.
        window=options.get("sliding_window") if flash else None,
        sinks=options.get("s_aux"),
        position_bias=options.get("position_bias"),
    )


def from_sdpa(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> AttentionCall:
    """Read a direct call of ``torch.nn.functional.scaled_dot_product_attention`` (same arguments)."""
    if query.dim() != 4 or key.dim() != 4:
        raise CaptureError(
            f"scaled_dot_product_attention was called with query {tuple(query.shape)} and key {tuple(key.shape)}; "
            "capture reads [batch, heads, length, head_dim]."
        )
    if attn_mask is not None and attn_mask.dim() < 4:
        attn_mask = attn_mask.reshape((1,) * (4 - attn_mask.dim()) + tuple(attn_mask.shape))
    return AttentionCall(query=_dense(query), key=_dense(key), mask=attn_mask, causal=is_causal, scale=scale)


def _dense(states: Tensor) -> Tensor:
    """With its channels side by side, as the kernel reads them: a convolution before the attention may leave them apart
    until a cache copies them."""
    return states if states.stride(-1) == 1 else states.contiguous()


def row_from_weights(weights: Tensor, image_index: Tensor, query_index: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mean over heads of one row of eager weights [B, H, Lq, Lk], in float32: at the image columns [B, M], and its sum
    over all keys [B]."""
    row = _query_rows(weights, query_index).mean(1)
    picked = row.gather(1, image_index.long().clamp(min=0))
    return picked.masked_fill(image_index < 0, 0.0), row.sum(-1)


def heads_from_weights(weights: Tensor, image_index: Tensor, query_index: Tensor | None) -> Tensor:
    """The same row of every head, at the image columns: [B, H, M]."""
    rows = _query_rows(weights, query_index)
    index = image_index.long()[:, None].expand(-1, rows.shape[1], -1)
    return rows.gather(2, index.clamp(min=0)).masked_fill(index < 0, 0.0)


def _query_rows(weights: Tensor, query_index: Tensor | None) -> Tensor:
    """[B, H, Lk] in float32."""
    batch = torch.arange(weights.shape[0], device=weights.device)
    return (weights[:, :, -1] if query_index is None else weights[batch, :, query_index.long()]).float()


def row_in_graph(
    call: AttentionCall, index: Tensor, row: Tensor, key_stop: Tensor | None, stats: Tensor, per_head: bool = False
) -> Tensor:
    """The row [B, M] of a call inside a compiled graph, or those of its heads [B, H, M]; its figures in ``stats``
    [B, 4]; ``row`` [B] of the query."""
    scores = ops.image_attention(
        call.query,
        call.key,
        index,
        row if call.query.shape[-2] > 1 else None,
        scale=call.scale,
        key_stop=key_stop,
        mask=call.mask,
        softcap=call.softcap,
        window=call.window,
        sinks=call.sinks,
        position_bias=call.position_bias,
        per_head=per_head,
        stats=stats,
    )
    assert isinstance(scores, Tensor)
    return scores
