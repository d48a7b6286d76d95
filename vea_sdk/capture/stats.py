"""Figures of each captured row: how much it looks at the image, and how sharply."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Stats:
    """One value per [layer, batch, query], float32.

    image_mass: sum of a over the image tokens, 0 to 1.
    peak: largest share of one image token in the row renormalised over the image, 0 to 1.
    entropy: entropy of that renormalised row in nats, 0 (one token) to log m (even).
    rapt_image, rapt_text: mean attention of a section / mean attention of all tokens the query may see; 1.0 is a
        section's even share (RAPT, arXiv 2510.17771). For the last prompt token "all" is the prompt. NaN where a
        section is empty, and in layers with attention sinks, whose rows do not sum to 1 over the tokens.
    """

    image_mass: Tensor
    peak: Tensor
    entropy: Tensor
    rapt_image: Tensor
    rapt_text: Tensor


def row_stats(rows: Tensor, image_tokens: Tensor, visible: Tensor, sinks: Tensor) -> Stats:
    """Figures of ``rows`` [layers, batch, queries, M].

    Args:
        rows: captured attention; absent tokens hold 0.
        image_tokens: [batch] number of image tokens.
        visible: [batch, queries] number of tokens the query may see.
        sinks: [layers] whether the layer has attention sinks.
    """
    mass = rows.sum(-1)
    share = rows / mass.unsqueeze(-1)
    m = image_tokens[None, :, None].to(rows.dtype)
    total = visible[None].to(rows.dtype)
    rapt_image = mass / m * total
    rapt_text = (1 - mass) / (total - m) * total
    unknown = sinks[:, None, None] | torch.zeros_like(mass, dtype=torch.bool)
    return Stats(
        image_mass=mass,
        peak=share.amax(-1) if rows.shape[-1] else torch.full_like(mass, torch.nan),
        entropy=torch.special.entr(share).sum(-1),
        rapt_image=rapt_image.masked_fill(unknown | (m == 0), torch.nan),
        rapt_text=rapt_text.masked_fill(unknown | (total <= m), torch.nan),
    )
