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
    mean: mean attention of all tokens the query may see; for the last prompt token that is the prompt. NaN in
        cross-attention, whose rows hold the image alone.
    rapt_image, rapt_text: mean attention of a section / ``mean``; 1.0 is a section's even share (RAPT, arXiv
        2510.17771). NaN where a section is empty, and in cross-attention.
    """

    image_mass: Tensor
    peak: Tensor
    entropy: Tensor
    mean: Tensor
    rapt_image: Tensor
    rapt_text: Tensor


def row_stats(figures: Tensor, image_tokens: Tensor, visible: Tensor, cross_attention: bool) -> Stats:
    """From the kernel's own figures of each row.

    Args:
        figures: [layers, batch, queries, 4], image mass, text mass, peak, entropy.
        image_tokens: [batch] number of image tokens.
        visible: [batch, queries] number of tokens the query may see.
        cross_attention: whether the rows lie over vision states only.
    """
    image, text, peak, entropy = figures.unbind(-1)
    m = image_tokens[None, :, None].to(image.dtype)
    total = visible[None].to(image.dtype)
    mean = (image + text) / total  # not 1 / total: attention sinks take their part
    if cross_attention:
        mean = torch.full_like(image, torch.nan)
    rapt_image, rapt_text = image / m / mean, text / (total - m) / mean
    return Stats(
        image_mass=image,
        peak=peak,
        entropy=entropy,
        mean=mean,
        rapt_image=rapt_image.masked_fill(m == 0, torch.nan),
        rapt_text=rapt_text.masked_fill(total <= m, torch.nan),
    )
