"""Step 1 of evidence: take out lone spikes (attention sinks)."""

from __future__ import annotations

from functools import reduce
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from vea_sdk.errors import InvalidInputError
from vea_sdk.evidence.arrays import ArrayT, like, to_numpy

Border = Literal["valid", "replicate"]
_AROUND = [(dy, dx) for dy in range(3) for dx in range(3) if (dy, dx) != (1, 1)]
_ABSENT = -np.inf  # what does not exist is never the highest


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
        [rows, cols], the same kind of array, without gradients. NaN and infinity stay.

    Raises:
        InvalidInputError: the grid is not [rows, cols], λ is not positive, or the border rule is unknown.
    """
    return like(denoised(to_numpy("grid", grid, ndim=2), lam, border), grid)


def denoised(cells: NDArray[Any], lam: float, border: Border = "valid") -> NDArray[Any]:
    """In numpy whatever the device: a grid is small, and a GPU would spend its time on launches."""
    around = _around(cells, border)
    spike = _above(cells, around, lam)
    if not spike.any():
        return cells.copy()
    values = np.stack(around)
    exists = values > _ABSENT
    mean = values.sum(0, where=exists) / exists.sum(0).clip(min=1)
    return np.where(spike, mean, cells).astype(cells.dtype)


def spikes(cells: NDArray[Any], lam: float = 10.0, border: Border = "valid") -> NDArray[np.bool_]:
    """[rows, cols] bool: the cells that :func:`denoise` replaces. Arguments and errors as there."""
    return _above(cells, _around(cells, border), lam)


def _around(cells: NDArray[Any], border: Border) -> list[NDArray[Any]]:
    """The eight neighbours of every cell, [rows, cols] each, ``_ABSENT`` where there is none."""
    if border not in get_args(Border):
        raise InvalidInputError(f'border={border!r} is unknown. Choose "valid" or "replicate".')
    rows, cols = cells.shape
    padded = np.full((rows + 2, cols + 2), _ABSENT, cells.dtype)
    padded[1:-1, 1:-1] = cells
    if border == "replicate":
        padded[[0, -1]] = padded[[1, -2]]
        padded[:, [0, -1]] = padded[:, [1, -2]]
    return [padded[dy : dy + rows, dx : dx + cols] for dy, dx in _AROUND]


def _above(cells: NDArray[Any], around: list[NDArray[Any]], lam: float) -> NDArray[np.bool_]:
    if not lam > 0:
        raise InvalidInputError(f"lam={lam} must be positive; 10 is the published value.")
    highest = reduce(np.maximum, around)
    # An infinite score is no spike but a fault, left for normalize() to report.
    return np.asarray((cells > lam * highest) & (highest > _ABSENT) & np.isfinite(cells))
