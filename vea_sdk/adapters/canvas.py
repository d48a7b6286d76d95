"""A picture on its way to tokens. Every image processor is a chain of resizes, crops, and paddings;
following the same chain with a ``Canvas`` gives exact boxes without touching a pixel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vea_sdk.adapters.geometry import Box, PatchGrid


@dataclass(frozen=True)
class Canvas:
    """``size`` (height, width) pixels that show ``region`` of the original picture, in original pixels."""

    region: Box
    size: tuple[int, int]

    @classmethod
    def of(cls, original_size: tuple[int, int]) -> Canvas:
        """The untouched picture; ``original_size`` is (height, width)."""
        height, width = original_size
        return cls((0.0, 0.0, float(width), float(height)), (height, width))

    def resized(self, height: int, width: int) -> Canvas:
        """The same region with other pixels."""
        return Canvas(self.region, (height, width))

    def cropped(self, top: int, left: int, height: int, width: int) -> Canvas:
        """A window of the canvas, in canvas pixels. Where it leaves the canvas, it is padding."""
        x0, y0, x1, y1 = self.region
        scale_y, scale_x = (y1 - y0) / self.size[0], (x1 - x0) / self.size[1]
        region = (
            x0 + left * scale_x,
            y0 + top * scale_y,
            x0 + (left + width) * scale_x,
            y0 + (top + height) * scale_y,
        )
        return Canvas(region, (height, width))

    def center_cropped(self, height: int, width: int) -> Canvas:
        """The middle window, padded on both sides where it is larger than the canvas."""
        return self.cropped((self.size[0] - height) // 2, (self.size[1] - width) // 2, height, width)

    def padded_to_square(self) -> Canvas:
        """Equal padding along the shorter side; the odd pixel goes to the bottom or the right."""
        height, width = self.size
        side = max(height, width)
        return self.cropped(-((side - height) // 2), -((side - width) // 2), side, side)

    def resized_to(self, size: dict[str, int]) -> Canvas:
        """As an image processor's ``size`` says: {height, width}, or {shortest_edge} with the aspect ratio
        kept."""
        if "shortest_edge" not in size:
            return self.resized(size["height"], size["width"])
        short, (height, width) = size["shortest_edge"], self.size
        # The product first: another order of the operations can round down to another pixel.
        if width <= height:
            return self.resized(int(short * height / width), short)
        return self.resized(short, int(short * width / height))

    def tiles(self, height: int, width: int) -> list[Canvas]:
        """The canvas cut into tiles of this size, in raster order."""
        tops, lefts = range(0, self.size[0], height), range(0, self.size[1], width)
        return [self.cropped(top, left, height, width) for top in tops for left in lefts]

    def grid(self, token_index: NDArray[np.int64]) -> PatchGrid:
        """The canvas cut into as many equal cells as ``token_index`` [rows, cols] has."""
        return PatchGrid(self.region, token_index)

    def patches(self, patch_height: int, patch_width: int, first_token: int = 0) -> PatchGrid:
        """One token per patch in raster order; pixels beyond the last whole patch belong to none."""
        rows, cols = self.size[0] // patch_height, self.size[1] // patch_width
        covered = self.cropped(0, 0, rows * patch_height, cols * patch_width)
        return covered.grid(raster(rows, cols, first_token))


def raster(rows: int, cols: int, first_token: int = 0, row_stride: int | None = None) -> NDArray[np.int64]:
    """Token numbers in raster order, [rows, cols]; ``row_stride`` > cols leaves room for separators after
    a row."""
    return first_token + (row_stride or cols) * np.arange(rows)[:, None] + np.arange(cols)[None, :]


def tile_mosaic(tile_rows: int, tile_cols: int, rows: int, cols: int, first_token: int = 0) -> NDArray[np.int64]:
    """Token numbers of tiles in raster order, each a raster of rows × cols tokens, put together into one
    grid: [tile_rows·rows, tile_cols·cols]."""
    tokens = first_token + np.arange(tile_rows * tile_cols * rows * cols)
    tiles = tokens.reshape(tile_rows, tile_cols, rows, cols)
    return tiles.swapaxes(1, 2).reshape(tile_rows * rows, tile_cols * cols)
