"""Step 2 of evidence: from patches to pixels, smoothly and exactly.

A map that is constant on patches and then blurred by a separable Gaussian is By · E · Bxᵀ, where column j of B is the
blurred indicator of row (column) j of the grid. No pixel is ever filtered, and B depends on geometry and σ only.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vea_sdk.errors import InvalidInputError
from vea_sdk.evidence.arrays import ArrayT, check_image_hw, like, to_tensor
from vea_sdk.evidence.compiled import empty, kernels_for, threads_for

TRUNCATE = 4.0
"""The Gaussian ends at this many standard deviations."""


def smooth(grid: ArrayT, image_hw: tuple[int, int], sigma: float = 0.5) -> ArrayT:
    """G_σ * upsample(e), computed as By · E · Bxᵀ (arXiv 2510.17771, Eq. 3).

    Upsampling is nearest-neighbour: pixel y belongs to row floor(y · rows / height). The Gaussian has a standard
    deviation of σ · min(height, width) pixels, is cut at 4 of them, and sees the picture reflected at its borders
    (…b a | a b…). That equals ``scipy.ndimage.gaussian_filter`` on the upsampled map.

    Args:
        grid: [rows, cols] scores, numpy or torch.
        image_hw: (height, width) of the result in pixels.
        sigma: σ in shorter sides of the picture; above 1 in pixels; 0 only upsamples.

    Returns:
        [height, width], the same kind of array, float64 for float64 and else float32.

    Raises:
        InvalidInputError: the grid is not [rows, cols], a side is below 1, or σ is negative, not finite or absurd.
    """
    cells = to_tensor("grid", grid, ndim=2)
    height, width = check_image_hw(image_hw)
    sigma_px = sigma_in_pixels(sigma, height, width)
    rows, cols = cells.shape
    down, across = Side(rows, height, sigma_px), Side(cols, width, sigma_px)
    kernels = None if cells.requires_grad else kernels_for(cells.dtype, cells.device)
    if kernels is not None:
        return like(expand_compiled(kernels, cells.numpy(), down, across, None)[0], grid)
    return like(expand(cells, down, across), grid)


def sigma_in_pixels(sigma: float, height: int, width: int) -> float:
    """σ ≤ 1 is a fraction of the shorter side, σ > 1 is pixels."""
    sigma_px = sigma * min(height, width) if sigma <= 1 else float(sigma)
    limit = 100 * max(height, width)
    if not 0 <= sigma_px <= limit:
        raise InvalidInputError(
            f"sigma={sigma} must lie between 0 and {limit} for {height}x{width} pixels: up to 1 it counts in shorter "
            "sides of the picture, above in pixels."
        )
    return sigma_px


class Side(NamedTuple):
    """One axis of a smoothed grid: ``n`` equal cells between ``start`` and ``stop`` (default: ``size``) in pixels."""

    n: int
    size: int
    sigma_px: float
    start: float = 0.0
    stop: float | None = None


def expand(cells: Tensor, down: Side, across: Side) -> Tensor:
    """By · cells · Bxᵀ: [rows, cols] → [height, width], on the device and in the dtype of ``cells``.

    The mean goes its own way, as By·1 · mean · (Bx·1)ᵀ: what is left after strong smoothing is a small variation on a
    large level, and float32 would spend its digits on the level.
    """
    # On CUDA float32 products may be rounded to TF32 and under autocast to bfloat16; either is visible in the map.
    dtype = torch.float64 if cells.is_cuda else cells.dtype
    by, bx = (torch.tensor(smoothing_columns(side), device=cells.device, dtype=dtype) for side in (down, across))
    with torch.autocast(cells.device.type, enabled=False):
        level = cells.mean()
        varying = by[:-1].T @ (cells - level).to(dtype) @ bx[:-1]
        return varying.addr_(by[-1] * level.to(dtype), bx[-1]).to(cells.dtype)


def expand_compiled(
    kernels: Any, cells: NDArray[np.float32], down: Side, across: Side, onto: NDArray[np.float32] | None
) -> tuple[NDArray[np.float32], tuple[float, float]]:
    """:func:`expand` in one pass over the pixels; added to ``onto`` in place, if given.

    Returns the map, and its smallest and largest value (NaN where there is one).
    """
    out = empty(kernels, (down.size, across.size), np.float32) if onto is None else onto
    level = cells.mean()
    core = np.zeros((down.n + 1, across.n + 1), np.float32)
    core[:-1, :-1] = cells - level
    core[-1, -1] = level
    sides = smoothing_columns(down, np.float32), core, smoothing_columns(across, np.float32)
    return out, kernels.expand_cpu(*sides, out, onto is not None, threads_for(out.size))


@lru_cache(maxsize=16)  # the two axes of the grids of a few pictures; one 12-megapixel picture takes about 8 MB
def smoothing_columns(side: Side, dtype: type[np.floating[Any]] = np.float64) -> NDArray[Any]:
    """[n + 1, size]: row j < n is column j of B, the indicator of cell j blurred along the side; the last is their sum.

    With edges e(j), g the Gaussian's taps summed at period 2·size (what reflection does to them) and K their running
    sum, the blurred indicator of the pixels [0, e) is K(e − y) − K(−e − y), since the mirror image of [0, e) is
    [−e, 0). So B[y, j] = that at e(j + 1) minus that at e(j): no pixel is filtered and no fold is followed.

    The n equal cells lie between ``start`` and ``stop`` (default: ``size``) in pixels. If that is the whole side, pixel
    y belongs to cell floor(y · n / size). Otherwise cells end anywhere: pixels they share count by area, and cells
    beyond the side are cut off.
    """
    n, size, sigma_px, start, stop = side
    stop = size if stop is None else stop
    if (start, stop) == (0, size):
        edges = [float(-(-j * size // n)) for j in range(n + 1)]  # the first pixel of each cell: ceil(j · size / n)
    else:
        edges = np.clip(start + (stop - start) * np.arange(n + 1) / n, 0, size).tolist()

    radius = int(TRUNCATE * sigma_px + 0.5)
    taps = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * (taps / sigma_px) ** 2) if sigma_px else np.ones(1)
    folded = np.bincount(taps % (2 * size), weights=kernel / kernel.sum(), minlength=2 * size)
    running = np.concatenate([[0.0], np.cumsum(np.tile(folded, 2))])  # K(t) for t = -2·size … 2·size

    def blurred(edge: float) -> NDArray[np.float64]:
        """K(edge − y) for y = 0 … size − 1. Between whole pixels K is a straight line."""
        whole = math.floor(edge)
        part = edge - whole
        at = whole + 2 * size
        values = running[at - size + 1 : at + 1][::-1]
        return values + part * (running[at - size + 2 : at + 2][::-1] - values) if part else values

    columns = np.empty((n + 1, size), dtype)
    first = before = blurred(edges[0]) - blurred(-edges[0])
    for column, edge in zip(columns, edges[1:], strict=False):
        upto = blurred(edge) - blurred(-edge)
        column[:] = upto - before
        before = upto
    columns[-1] = before - first
    columns.setflags(write=False)
    return columns
