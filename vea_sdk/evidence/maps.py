"""Scores → evidence map: the three steps in a row, for one grid or for all grids of a picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vea_sdk.adapters.geometry import ImageLayout
from vea_sdk.errors import GeometryError, InvalidInputError
from vea_sdk.evidence.arrays import ArrayT, check_image_hw, device_of, like, to_numpy
from vea_sdk.evidence.compiled import kernels_for
from vea_sdk.evidence.denoising import denoised
from vea_sdk.evidence.normalizing import normalize_
from vea_sdk.evidence.smoothing import Side, expand, expand_compiled, sigma_in_pixels

Canvas = Literal["original", "input"]
"""The picture as the user gave it, or the cropped, padded and resized one that the model saw."""


def build_map(
    scores: ArrayT,
    grid_size: tuple[int, int],
    image_hw: tuple[int, int],
    lam: float = 10.0,
    sigma: float = 0.5,
    denoise: bool = True,
    smooth: bool = True,
) -> ArrayT:
    """ẽ = normalize(smooth(denoise(e))) (arXiv 2510.17771, Eqs. 2 and 3).

    Args:
        scores: [rows · cols] in raster order, numpy or torch.
        grid_size: (rows, cols).
        image_hw: (height, width) of the map in pixels.
        lam: λ of :func:`denoise`.
        sigma: σ of :func:`smooth`.
        denoise: False skips Eq. 2.
        smooth: False only upsamples.

    Returns:
        [height, width] in [0, 1], the same kind of array, without gradients.

    Raises:
        GeometryError: the number of scores is not rows · cols.
        NaNAttentionError: the scores hold NaN.
    """
    rows, cols = grid_size
    values = to_numpy("scores", scores)
    if values.size != rows * cols:
        raise GeometryError(
            f"{values.size} scores do not fill a grid of {rows} x {cols} = {rows * cols} patches. Pass the scores "
            "of one picture, without separators, and its own grid_size."
        )
    cells = values.reshape(rows, cols)
    height, width = check_image_hw(image_hw)
    sigma_px = sigma_in_pixels(sigma if smooth else 0.0, height, width)
    part = denoised(cells, lam) if denoise else cells, Side(rows, height, sigma_px), Side(cols, width, sigma_px)
    return like(_normalized_sum([part], device_of(scores)), scores)


def layout_map(
    scores: ArrayT,
    layout: ImageLayout,
    lam: float = 10.0,
    sigma: float = 0.5,
    denoise: bool = True,
    smooth: bool = True,
    canvas: Canvas = "original",
) -> ArrayT:
    """ẽ = normalize(Σ_g By(g) · denoise(E(g)) / cell area(g) · Bx(g)ᵀ), over the grids g of one picture.

    Attention is treated as a density: a token's score is spread evenly over its box, and the densities of all grids
    (tiles, thumbnail, crops) add up. For a single grid over the whole picture this is :func:`build_map`.

    Args:
        scores: [n_tokens] of one picture, separators included, numpy or torch.
        layout: how the picture became tokens.
        lam: λ of :func:`denoise`, applied to each grid.
        sigma: σ of :func:`smooth`.
        denoise: False skips Eq. 2.
        smooth: False only upsamples.
        canvas: ``"original"``: the map of the picture as given; ``"input"``: of the canvas the model saw.

    Returns:
        [height, width] of the canvas in [0, 1], the same kind of array, without gradients.

    Raises:
        GeometryError: the number of scores is not ``layout.n_tokens``.
        NaNAttentionError: the scores hold NaN.
    """
    height, width = canvas_size(layout, canvas)
    sigma_px = sigma_in_pixels(sigma if smooth else 0.0, height, width)
    return _laid_out(scores, layout, canvas, lam if denoise else None, lambda down, across: (sigma_px, sigma_px))


def look_map(
    scores: ArrayT, layout: ImageLayout, lam: float = 10.0, sigma: float | None = None, canvas: Canvas = "original"
) -> ArrayT:
    """Where to look: normalize(Σ_g By(g) · denoise(E(g)) / cell area(g) · Bx(g)ᵀ), each grid smoothed by half a cell.

    :func:`layout_map` for people. The method's σ, half the shorter side, makes a map that highlights well and hardly
    shows a place; here the Gaussian's standard deviation is half a cell's height and half a cell's width of each grid,
    so that the peak lies in or beside the highest cells.

    Args:
        scores: [n_tokens] of one picture, separators included, numpy or torch.
        layout: how the picture became tokens.
        lam: λ of :func:`denoise`, applied to each grid.
        sigma: one σ for all instead, as in :func:`smooth`.
        canvas: as in :func:`layout_map`.

    Returns, raises: as :func:`layout_map`.
    """
    if sigma is not None:
        return layout_map(scores, layout, lam, sigma, canvas=canvas)
    return _laid_out(scores, layout, canvas, lam, lambda down, across: (down / 2, across / 2))


def density(scores: NDArray[Any], layout: ImageLayout, lam: float = 10.0, sigma: float | None = None) -> NDArray[Any]:
    """What :func:`look_map` normalises, or with a σ what :func:`layout_map` does, [H, W] of the original: in units of
    the scores, so maps of several pictures with equal layouts can be compared, and normalised together."""
    height, width = layout.original_size
    sigma_px = None if sigma is None else sigma_in_pixels(sigma, height, width)

    def spread(down: float, across: float) -> tuple[float, float]:
        return (down / 2, across / 2) if sigma_px is None else (sigma_px, sigma_px)

    return np.asarray(_summed(_parts(scores, layout, "original", lam, spread), torch.device("cpu"))[0])


def _laid_out(
    scores: ArrayT,
    layout: ImageLayout,
    canvas: Canvas,
    lam: float | None,
    sigma_px: Callable[[float, float], tuple[float, float]],
) -> ArrayT:
    """The normalised sum of the grids' densities, see :func:`_parts`."""
    return like(_normalized_sum(_parts(scores, layout, canvas, lam, sigma_px), device_of(scores)), scores)


def _parts(
    scores: ArrayT,
    layout: ImageLayout,
    canvas: Canvas,
    lam: float | None,
    sigma_px: Callable[[float, float], tuple[float, float]],
) -> list[tuple[NDArray[Any], Side, Side]]:
    """The grids' densities and how they spread, denoised where λ is given; ``sigma_px``: the standard deviation down
    and across, from the height and width of a cell in pixels of the canvas."""
    values = to_numpy("scores", scores, ndim=1)
    if len(values) != layout.n_tokens:
        raise GeometryError(
            f"{len(values)} scores do not match the layout's {layout.n_tokens} tokens ({layout}). Pass the scores of "
            "this one picture, separators included."
        )
    height, width = canvas_size(layout, canvas)
    parts = []
    for grid in layout.grids:
        cells = values[grid.token_index]
        if lam is not None:
            cells = denoised(cells, lam)
        # Relative to the first grid: a common factor is normalised away, and a single grid keeps its very numbers.
        density = cells * cells.dtype.type(layout.grids[0].cell_area / grid.cell_area)
        x0, y0, x1, y1 = on_canvas(grid.region, layout, canvas)
        sigma_y, sigma_x = sigma_px((y1 - y0) / grid.rows, (x1 - x0) / grid.cols)
        down = Side(grid.rows, height, sigma_y, *_snapped(y0, y1, height))
        across = Side(grid.cols, width, sigma_x, *_snapped(x0, x1, width))
        parts.append((density, down, across))
    return parts


def _normalized_sum(parts: Sequence[tuple[NDArray[Any], Side, Side]], device: torch.device) -> NDArray[Any] | Tensor:
    """normalize(Σ By · cells · Bxᵀ) over (cells, down, across) of the same picture."""
    pixels, low, high = _summed(parts, device)
    return normalize_(pixels, low, high)  # type: ignore[type-var]  # one kind or the other


def _summed(
    parts: Sequence[tuple[NDArray[Any], Side, Side]], device: torch.device
) -> tuple[NDArray[Any] | Tensor, float, float]:
    """Σ By · cells · Bxᵀ, its smallest and its largest value."""
    kernels = kernels_for(parts[0][0].dtype, device)
    if kernels is None:
        total = reduce(torch.add, [expand(torch.from_numpy(c).to(device), down, across) for c, down, across in parts])
        low, high = torch.stack(torch.aminmax(total)).tolist()
        return total, low, high
    pixels, low, high = None, 0.0, 0.0
    for cells, down, across in parts:
        pixels, (low, high) = expand_compiled(kernels, cells, down, across, pixels)
    assert pixels is not None  # a layout has at least one grid
    return pixels, low, high


def canvas_size(layout: ImageLayout, canvas: Canvas) -> tuple[int, int]:
    """(height, width) in pixels."""
    if canvas not in ("original", "input"):
        raise InvalidInputError(f'canvas={canvas!r} is unknown. Choose "original" or "input".')
    return layout.original_size if canvas == "original" else layout.input_size


def on_canvas(
    box: tuple[float, float, float, float], layout: ImageLayout, canvas: Canvas
) -> tuple[float, float, float, float]:
    """A box in original pixels, in pixels of the canvas."""
    if canvas == "original":
        return box
    (left, top, right, bottom), (height, width) = layout.input_region, layout.input_size
    scale_x, scale_y = width / (right - left), height / (bottom - top)
    x0, y0, x1, y1 = box
    return (x0 - left) * scale_x, (y0 - top) * scale_y, (x1 - left) * scale_x, (y1 - top) * scale_y


def _snapped(start: float, stop: float, size: int) -> tuple[float, float]:
    """Edges that miss the picture's by a rounding error are the picture's."""
    near = np.isclose([start, stop], [0.0, size], rtol=0, atol=1e-6)
    return (0.0 if near[0] else start), (float(size) if near[1] else stop)
