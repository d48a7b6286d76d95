"""Idefics3: tiles between row and column tokens, and the whole picture last."""

from __future__ import annotations

from typing import Any

from vea_sdk.adapters.options import image_option
from vea_sdk.adapters.tiles import TilesAdapter


class Idefics3Adapter(TilesAdapter):
    """Square tiles; a pixel shuffle makes one token of scale_factor² patches."""

    model_types = ("idefics3", "smolvlm")

    def tile_size(self, processor: Any) -> tuple[int, int]:
        side = int(image_option(processor, "max_image_size")["longest_edge"])
        return side, side

    def tile_tokens(self, processor: Any) -> tuple[int, int]:
        side = self.tile_size(processor)[0] // self.config.vision_config.patch_size // self.config.scale_factor
        return side, side

    def arrangement(self, original_size: tuple[int, int], processor: Any) -> tuple[int, int]:
        _, rows, cols = processor.image_processor.get_number_of_image_patches(*original_size, {})
        return max(rows, 1), max(cols, 1)
