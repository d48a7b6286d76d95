"""One attention call, reduced to what the row of one query depends on."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(slots=True)  # not frozen: one is made per layer and token, and that would take three times as long
class AttentionCall:
    """Query and keys of one call, after rotary embedding, q/k norm and cache update."""

    query: Tensor  # [B, Hq, Lq, D]
    key: Tensor  # [B, Hkv, Lk, D]
    mask: Tensor | None = None  # [B|1, H|1, Lq|1, >=Lk] bool or additive
    causal: bool = False  # query row i sees keys 0..i; only meaningful without a mask
    scale: float | None = None
    softcap: float | None = None
    window: int | None = None
    sinks: Tensor | None = None  # [Hq]
    position_bias: Tensor | None = None  # [B|1, H|1, Lq|1, >=Lk]
