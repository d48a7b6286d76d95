"""Step 2 of evidence: from patches to pixels, smoothly and exactly.

A map that is constant on patches and then blurred by a separable Gaussian is By · E · Bxᵀ, where column j of B is the
blurred indicator of row (column) j of the grid. No pixel is ever filtered, and B depends on geometry and σ only.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vea_sdk.errors import InvalidInputError
from vea_sdk.evidence.arrays import ArrayT, check_image_hw, like, to_tensor

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
    by = smoothing_matrix(rows, height, sigma_px)
    bx = smoothing_matrix(cols, width, sigma_px)
    return like(expand(cells, by, bx), grid)


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


def expand(cells: Tensor, by: Tensor, bx: Tensor) -> Tensor:
    """By · cells · Bxᵀ: [rows, cols] → [height, width], on the device and in the dtype of ``cells``.

    The mean goes its own way, as By·1 · mean · (Bx·1)ᵀ: what is left after strong smoothing is a small variation on a
    large level, and float32 would spend its digits on the level.
    """
    # On CUDA float32 products may be rounded to TF32 and under autocast to bfloat16; either is visible in the map.
    dtype = torch.float64 if cells.is_cuda else cells.dtype
    with torch.autocast(cells.device.type, enabled=False):
        # By, By·1, Bx, Bx·1; the sums are taken before rounding, where those of whole grids are 1.
        left, down, right, across = (b.to(cells.device, dtype) for b in (by, by.sum(1), bx, bx.sum(1)))
        level = cells.mean()
        varying = left @ (cells - level).to(dtype) @ right.T
        return varying.addr_(down * level.to(dtype), across).to(cells.dtype)


@lru_cache(maxsize=16)  # the two axes of the grids of a few pictures; one 12-megapixel picture takes about 8 MB
def smoothing_matrix(n: int, size: int, sigma_px: float, start: float = 0.0, stop: float | None = None) -> Tensor:
    """B [size, n] float64: column j is the indicator of cell j, blurred along a side of ``size`` pixels.

    With edges e(j), g the Gaussian's taps summed at period 2·size (what reflection does to them) and K their running
    sum, the blurred indicator of the pixels [0, e) is K(e − y) − K(−e − y), since the mirror image of [0, e) is
    [−e, 0). So B[y, j] = that at e(j + 1) minus that at e(j): no pixel is filtered and no fold is followed.

    The n equal cells lie between ``start`` and ``stop`` (default: ``size``) in pixels. If that is the whole side, pixel
    y belongs to cell floor(y · n / size). Otherwise cells end anywhere: pixels they share count by area, and cells
    beyond the side are cut off.
    """
    stop = size if stop is None else stop
    if (start, stop) == (0, size):
        edges = -(-np.arange(n + 1) * size // n).astype(np.float64)  # the first pixel of each cell: ceil(j · size / n)
    else:
        edges = np.clip(start + (stop - start) * np.arange(n + 1) / n, 0, size)

    radius = int(TRUNCATE * sigma_px + 0.5)
    taps = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * (taps / sigma_px) ** 2) if sigma_px else np.ones(1)
    folded = np.bincount(taps % (2 * size), weights=kernel / kernel.sum(), minlength=2 * size)
    running = np.concatenate([[0.0], np.cumsum(np.tile(folded, 2))])  # K(t) for t = -2·size … 2·size

    def blurred(edge: NDArray[np.float64]) -> NDArray[np.float64]:
        """K(edge − y), [size, n + 1]."""
        whole = np.floor(edge).astype(np.int64)
        at, part = whole + 2 * size - np.arange(size)[:, None], edge - whole
        # Between whole pixels K is a straight line.
        return np.asarray(running[at] + part * (running[at + 1] - running[at]))

    return torch.from_numpy(np.diff(blurred(edges) - blurred(-edges), axis=1))
