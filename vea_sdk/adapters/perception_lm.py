"""Perception LM: the whole picture first, then its tiles, in one run of tokens."""

from __future__ import annotations

from typing import Any, ClassVar

from vea_sdk.adapters.options import image_option
from vea_sdk.adapters.tiles import TilesAdapter


class PerceptionLMAdapter(TilesAdapter):
    """Pooling makes one token of projector_pooling_ratio² patches. A picture of one tile has its thumbnail, too."""

    model_types = ("perception_lm",)
    thumbnail_first: ClassVar[bool] = True
    thumbnail_of_one_tile: ClassVar[bool] = True

    def tile_size(self, processor: Any) -> tuple[int, int]:
        side = int(image_option(processor, "tile_size"))
        return side, side

    def tile_tokens(self, processor: Any) -> tuple[int, int]:
        side = self.tile_size(processor)[0] // processor.patch_size // self.config.projector_pooling_ratio
        return side, side

    def arrangement(self, original_size: tuple[int, int], processor: Any) -> tuple[int, int]:
        height, width = original_size
        rule, side = processor.image_processor, self.tile_size(processor)[0]
        canvas = rule._fit_image_to_canvas(img_width=width, img_height=height, tile_size=side)
        if canvas is None:
            canvas = rule._find_closest_aspect_ratio(img_width=width, img_height=height, tile_size=side)
        cols, rows = canvas
        return rows, cols
