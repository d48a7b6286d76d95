"""Llama 4: the picture on a canvas of tiles, padded at the right and the bottom, and a thumbnail."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from vea_sdk.adapters.canvas import Canvas
from vea_sdk.adapters.options import image_option, size_option
from vea_sdk.adapters.tiles import TilesAdapter


class Llama4Adapter(TilesAdapter):
    """The canvas is the smallest of those that enlarge the picture least, or else shrink it least."""

    model_types = ("llama4",)

    def tile_size(self, processor: Any) -> tuple[int, int]:
        size = size_option(processor, "size")
        return size["height"], size["width"]

    def tile_tokens(self, processor: Any) -> tuple[int, int]:
        height, width = self.tile_size(processor)
        vision = self.config.vision_config
        ratio = vision.pixel_shuffle_ratio
        return int(height // vision.patch_size * ratio), int(width // vision.patch_size * ratio)

    def arrangement(self, original_size: tuple[int, int], processor: Any) -> tuple[int, int]:
        most = image_option(processor, "max_patches")
        tiles = [(rows, cols) for rows in range(1, most + 1) for cols in range(1, most // rows + 1)]
        # In float32 as the processor does, because canvases compete by the equality of their scales.
        canvases = (np.array(tiles) * self.tile_size(processor)).astype(np.float32)
        scales = (canvases / np.array(original_size, dtype=np.float32)).min(axis=1)
        enlarging = scales[scales >= 1]
        if not enlarging.size:
            best = scales.max()
        else:
            best = enlarging.max() if image_option(processor, "resize_to_max_canvas") else enlarging.min()
        return min((tiles[i] for i in np.flatnonzero(scales == best)), key=math.prod)

    def canvas(self, original_size: tuple[int, int], size: tuple[int, int], processor: Any) -> Canvas:
        """Scaled to fit, but not beyond a tile's side unless the processor is told so, and padded."""
        limit = size
        if not image_option(processor, "resize_to_max_canvas"):
            side = self.tile_size(processor)[0]
            limit = (min(max(original_size[0], side), size[0]), min(max(original_size[1], side), size[1]))
        return Canvas.of(original_size).resized(*fitted(original_size, limit)).cropped(0, 0, *size)


def fitted(original_size: tuple[int, int], limit: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of the picture enlarged or shrunk until it touches the limit, its aspect ratio kept."""
    (height, width), (most_height, most_width) = original_size, limit
    scale_y, scale_x = most_height / height, most_width / width
    if scale_x < scale_y:
        return max(min(math.floor(height * scale_x), most_height), 1), most_width
    return most_height, max(min(math.floor(width * scale_y), most_width), 1)
