"""Cohere 2 Vision: tiles, each closed by a line-break token that is no placeholder, and a thumbnail."""

from __future__ import annotations

from typing import Any

import numpy as np

from vea_sdk.adapters.options import image_option, size_option
from vea_sdk.adapters.tiles import TilesAdapter


class Cohere2VisionAdapter(TilesAdapter):
    """The arrangement of tiles is the one that enlarges the picture least, or else shrinks it least."""

    model_types = ("cohere2_vision",)

    def tile_size(self, processor: Any) -> tuple[int, int]:
        size = size_option(processor, "size")
        return size["height"], size["width"]

    def tile_tokens(self, processor: Any) -> tuple[int, int]:
        side = int(processor.patch_size)  # the processor's name for tokens along a tile's side
        return side, side

    def arrangement(self, original_size: tuple[int, int], processor: Any) -> tuple[int, int]:
        height, width = self.tile_size(processor)
        most = image_option(processor, "max_patches")
        grids = [(rows, cols) for rows in range(1, most + 1) for cols in range(1, most // rows + 1)]
        grids.sort(key=lambda grid: (grid[0] * grid[1], grid[1]))
        tiles = np.array(grids)
        scale = (tiles * (height, width) / np.array(original_size)).min(axis=1)
        if (scale < 1).all():
            return grids[int(scale.argmax())]
        return grids[int(np.where(scale < 1, np.inf, scale).argmin())]
