"""Step 1 of evidence: take out lone spikes (attention sinks)."""

from __future__ import annotations

from typing import Literal, get_args

import torch

from vea_sdk.errors import InvalidInputError
from vea_sdk.evidence.arrays import ArrayT, like, to_tensor

Border = Literal["valid", "replicate"]
_AROUND = [(dy, dx) for dy in range(3) for dx in range(3) if (dy, dx) != (1, 1)]


def denoise(grid: ArrayT, lam: float = 10.0, border: Border = "valid") -> ArrayT:
    """e'[i,j] = mean of the 3×3 neighbours where e[i,j] > λ · their maximum, else e[i,j] (arXiv 2510.17771, Eq. 2).

    All cells are tested on the input grid, once. The centre is not its own neighbour.

    Args:
        grid: [rows, cols] scores, numpy or torch.
        lam: λ > 0; larger keeps more.
        border: ``"valid"``: neighbours are the cells that exist, 3 at a corner. ``"replicate"``: edge values are
            repeated outwards as in the authors' code, which makes a border cell its own neighbour, so that a spike
            there stays (for λ ≥ 1).

    Returns:
        [rows, cols], the same kind of array. NaN and infinity stay.

    Raises:
        InvalidInputError: the grid is not [rows, cols], λ is not positive, or the border rule is unknown.
    """
    if not lam > 0:
        raise InvalidInputError(f"lam={lam} must be positive; 10 is the published value.")
    if border not in get_args(Border):
        raise InvalidInputError(f'border={border!r} is unknown. Choose "valid" or "replicate".')
    cells = to_tensor("grid", grid, ndim=2)
    rows, cols = cells.shape
    y = torch.arange(-1, rows + 1, device=cells.device)
    x = torch.arange(-1, cols + 1, device=cells.device)
    inside_y, inside_x = y.clamp(0, rows - 1), x.clamp(0, cols - 1)
    padded = cells[inside_y][:, inside_x]
    exists = torch.ones_like(padded, dtype=torch.bool)
    if border == "valid":
        exists = (y == inside_y)[:, None] & (x == inside_x)[None, :]

    values = torch.stack([padded[dy : dy + rows, dx : dx + cols] for dy, dx in _AROUND])
    counted = torch.stack([exists[dy : dy + rows, dx : dx + cols] for dy, dx in _AROUND])
    highest = values.masked_fill(~counted, -torch.inf).amax(0)
    count = counted.sum(0)
    mean = values.masked_fill(~counted, 0).sum(0) / count.clamp(min=1)
    # An infinite score is no spike but a fault, left for normalize() to report.
    spike = (cells > lam * highest) & (count > 0) & cells.isfinite()
    return like(torch.where(spike, mean, cells), grid)
