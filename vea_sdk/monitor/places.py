"""Where on the pictures: boxes, lone spikes, and what lies on the border."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from vea_sdk.adapters.geometry import ImageLayout
from vea_sdk.monitor.record import Patch

LAM = 10.0
"""λ of Eq. 2, as published."""


def spikes(row: Tensor, layouts: Sequence[ImageLayout], lam: float = LAM) -> Tensor:
    """How many patches have e[i,j] > λ · max of their 3×3 neighbours (arXiv 2510.17771, Eq. 2), those that exist.

    ``row``: [m] scores of the image tokens, picture after picture. What :func:`vea_sdk.evidence.denoise` would replace
    is counted here on the device, so that the row need not leave it. Returns a scalar there.
    """
    found = row.new_zeros(())
    for cells in _grids(row, layouts):
        rows, cols = cells.shape
        padded = pad(cells, (1, 1, 1, 1), value=-torch.inf)
        shifts = [(y, x) for y in range(3) for x in range(3) if (y, x) != (1, 1)]
        highest = torch.stack([padded[y : y + rows, x : x + cols] for y, x in shifts]).amax(0)
        found = found + ((cells > lam * highest) & (highest > -torch.inf) & cells.isfinite()).sum()
    return found


def border_share(row: Tensor, layouts: Sequence[ImageLayout]) -> Tensor:
    """Share of the image mass that lies on the outermost patches of the grids. Arguments as :func:`spikes`."""
    inside = sum((cells[1:-1, 1:-1].sum() for cells in _grids(row, layouts)), row.new_zeros(()))
    return (sum((cells.sum() for cells in _grids(row, layouts)), row.new_zeros(())) - inside) / row.sum()


def patches(top: Sequence[tuple[int, float]], layouts: Sequence[ImageLayout] | None) -> tuple[Patch, ...]:
    """The highest tokens with their boxes, clipped to the picture; no box for a token that shows none of it."""
    if not layouts:
        return tuple(Patch(token, score) for token, score in top)
    images = [image for image, layout in enumerate(layouts) for _ in range(layout.n_tokens)]
    boxes = np.concatenate([_clipped(layout) for layout in layouts]).tolist()
    found = []
    for token, score in top:
        x0, y0, x1, y1 = boxes[token]
        found.append(Patch(token, score, images[token], (x0, y0, x1, y1) if x1 > x0 and y1 > y0 else None))
    return tuple(found)


def _clipped(layout: ImageLayout) -> NDArray[np.float64]:
    height, width = layout.original_size
    return np.clip(layout.token_boxes(), 0, [width, height, width, height])


def _grids(row: Tensor, layouts: Sequence[ImageLayout]) -> list[Tensor]:
    """[rows, cols] scores of every grid of every picture."""
    grids, start = [], 0
    for layout in layouts:
        for grid in layout.grids:
            index = torch.as_tensor(np.array(grid.token_index)).to(row.device, non_blocking=True)
            grids.append(row[start + index])
        start += layout.n_tokens
    return grids
