"""Ovis2: the whole picture first, then its tiles, with tokens between them that are no placeholders."""

from __future__ import annotations

from typing import Any, ClassVar

from vea_sdk.adapters.internvl import tile_arrangement
from vea_sdk.adapters.options import image_option, size_option
from vea_sdk.adapters.tiles import TilesAdapter


class Ovis2Adapter(TilesAdapter):
    """hidden_stride² patches make one token. The fewest tiles that show nine tenths of the picture without shrinking
    it are taken."""

    model_types = ("ovis2",)
    thumbnail_first: ClassVar[bool] = True

    def tile_size(self, processor: Any) -> tuple[int, int]:
        size = size_option(processor, "size")
        return size["height"], size["width"]

    def tile_tokens(self, processor: Any) -> tuple[int, int]:
        height, width = self.tile_size(processor)
        pixels = self.config.vision_config.patch_size * self.config.vision_config.hidden_stride
        return height // pixels, width // pixels

    def arrangement(self, original_size: tuple[int, int], processor: Any) -> tuple[int, int]:
        from transformers.models.ovis2.image_processing_pil_ovis2 import get_min_tile_covering_grid

        if not image_option(processor, "use_covering_area_grid"):
            return tile_arrangement(original_size, processor)
        cols, rows = get_min_tile_covering_grid(
            original_size, self.tile_size(processor)[0], image_option(processor, "max_patches")
        )
        return rows, cols
