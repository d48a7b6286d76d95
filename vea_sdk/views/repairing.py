"""Repairs: the picture with its light evened out. l is the mean of a pixel's channels, values run from 0 to 255."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vea_sdk.adapters.geometry import Box
from vea_sdk.evidence import Evidence
from vea_sdk.views.shifting import plain
from vea_sdk.views.view import View, Views, whole_box

Pixels = NDArray[np.float32]

SMALL_SIDE = 168
"""The shorter side, in pixels, at which light is measured: a quarter of that of the pictures it was tried on."""

LOOKED_AT = 0.2
"""Of the row's maximum: what belongs to the window that was looked at."""


def repairs() -> Views:
    """Renderings of a picture whose light may hide what it shows, the plain picture first.

    - *levels*: percentiles 2 and 98 of l are taken to 25 and 245, linearly;
    - *levels of the look*: those of l in the window looked at: the patches connected with the peak (by their 8
      neighbours) at or above 0.2 of it, and one patch of margin; left out without evidence;
    - *flat field*: 240·p / max(8, G(max filter of l)), filter of 9, G a Gaussian of σ = 10 pixels;
    - *local levels*: 25 + 220·(p − lo) / max(12, hi − lo), lo and hi by min and max filters of 28, then G.

    Filters work on the picture shrunk to 168 pixels on its shorter side.
    """

    def make(image: Image.Image, evidence: Evidence | None = None) -> list[View]:
        def view(name: str, rendered: Callable[[Pixels], Pixels]) -> View:
            def render() -> Image.Image:
                pixels = np.asarray(image.convert("RGB"), np.float32)
                return Image.fromarray(np.clip(np.rint(rendered(pixels)), 0, 255).astype(np.uint8))

            return View(name, whole_box(image), render)

        found = [plain(image), view("levels", levels)]
        if evidence is not None:
            part = looked_at(evidence)
            found.append(view("levels of the look", lambda pixels: levels(pixels, part)))
        return [*found, view("flat field", flat_field), view("local levels", local_levels)]

    return make


def levels(pixels: Pixels, box: Box | None = None) -> Pixels:
    """[H, W, 3] with percentiles 2 and 98 of l, of all pixels or of those in ``box``, at 25 and 245."""
    height, width = pixels.shape[:2]
    x0, y0, x1, y1 = (0, 0, width, height) if box is None else box
    part = pixels[int(y0) : max(int(y0) + 1, round(y1)), int(x0) : max(int(x0) + 1, round(x1))]
    low, high = np.percentile(part.mean(-1), [2, 98])
    return np.asarray(25 + 220 * (pixels - low) / max(1.0, high - low), np.float32)


def flat_field(pixels: Pixels) -> Pixels:
    """[H, W, 3] divided by how bright its surroundings are at most."""
    light = _measured(pixels, lambda small: _gaussian(_extreme(small, 9, np.max)))
    return np.asarray(240 * pixels / np.maximum(8, light)[..., None], np.float32)


def local_levels(pixels: Pixels) -> Pixels:
    """[H, W, 3] between the darkest and the brightest of its surroundings."""
    low = _measured(pixels, lambda small: _gaussian(_extreme(small, 28, np.min)))[..., None]
    high = _measured(pixels, lambda small: _gaussian(_extreme(small, 28, np.max)))[..., None]
    return np.asarray(25 + 220 * (pixels - low) / np.maximum(12, high - low), np.float32)


def looked_at(evidence: Evidence) -> Box:
    """The window that was looked at, in original pixels: see :func:`repairs`."""
    grid = evidence.layout.finest
    scores = evidence.scores[grid.token_index]
    high = scores >= LOOKED_AT * scores.max()
    inside = np.zeros(scores.shape, bool)
    inside[np.unravel_index(scores.argmax(), scores.shape)] = True
    while True:
        grown = _dilated(inside) & high
        if (grown == inside).all():
            break
        inside = grown
    boxes = grid.boxes()[_dilated(inside)]
    height, width = evidence.layout.original_size
    x0, y0 = np.clip(boxes[:, :2].min(0), 0, [width - 1, height - 1]).tolist()
    x1, y1 = np.clip(boxes[:, 2:].max(0), 1, [width, height]).tolist()
    return x0, y0, x1, y1


def _dilated(cells: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The cells and their 8 neighbours."""
    padded = np.pad(cells, 1)
    rows, cols = cells.shape
    return np.asarray(np.any([padded[i : i + rows, j : j + cols] for i in range(3) for j in range(3)], axis=0))


def _measured(pixels: Pixels, measure: Callable[[Pixels], Pixels]) -> Pixels:
    """What is measured on l of the small picture, for every pixel of the large one."""
    height, width = pixels.shape[:2]
    scale = SMALL_SIDE / min(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = Image.fromarray(pixels.mean(-1)).resize(size, Image.Resampling.BOX)
    found = Image.fromarray(measure(np.asarray(small, np.float32)))
    return np.asarray(found.resize((width, height), Image.Resampling.BILINEAR), np.float32)


def _extreme(values: Pixels, side: int, which: Callable[..., Pixels]) -> Pixels:
    """The highest or lowest value of the square of ``side`` around each, borders reflected."""
    for axis in (0, 1):
        before = side // 2
        pad = [(0, 0), (0, 0)]
        pad[axis] = (before, side - 1 - before)
        views = np.lib.stride_tricks.sliding_window_view(np.pad(values, pad, "symmetric"), side, axis)
        values = which(views, axis=-1)
    return values


def _gaussian(values: Pixels, sigma: float = 10.0) -> Pixels:
    """A Gaussian filter, borders reflected, truncated at 4 σ."""
    reach = int(4 * sigma + 0.5)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    weights /= weights.sum()
    for axis in (0, 1):
        pad = [(0, 0), (0, 0)]
        pad[axis] = (reach, reach)
        views = np.lib.stride_tricks.sliding_window_view(np.pad(values, pad, "symmetric"), len(weights), axis)
        values = (views @ weights).astype(np.float32)
    return values
