"""InternVL: tiles and a thumbnail; a pixel shuffle makes one token of 2 × 2 patches."""

from __future__ import annotations

from typing import Any, ClassVar

from vea_sdk.adapters.canvas import Canvas
from vea_sdk.adapters.geometry import ImageLayout
from vea_sdk.adapters.options import image_option, size_option
from vea_sdk.adapters.tiles import TilesAdapter


class InternVLAdapter(TilesAdapter):
    """The arrangement of tiles is the one nearest to the picture's aspect ratio."""

    model_types: ClassVar[tuple[str, ...]] = ("internvl", "qianfan_ocr")

    def tile_size(self, processor: Any) -> tuple[int, int]:
        size = size_option(processor, "size")
        return size["height"], size["width"]

    def tile_tokens(self, processor: Any) -> tuple[int, int]:
        height, width = self.tile_size(processor)
        patch_height, patch_width = self.config.vision_config.patch_size
        ratio = self.config.downsample_ratio
        return int(height // patch_height * ratio), int(width // patch_width * ratio)

    def arrangement(self, original_size: tuple[int, int], processor: Any) -> tuple[int, int]:
        return tile_arrangement(original_size, processor)

    def canvases(self, layout: ImageLayout, processor: Any) -> list[Canvas]:
        picture, tile = Canvas(layout.input_region, layout.input_size), self.tile_size(processor)
        tiles = picture.tiles(*tile)
        return tiles if len(tiles) == 1 else [*tiles, picture.resized(*tile)]


def tile_arrangement(original_size: tuple[int, int], processor: Any) -> tuple[int, int]:
    """(rows, cols) of tiles, chosen by the image processor's own rule."""
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas

    tile = size_option(processor, "size")
    cols, rows = get_optimal_tiled_canvas(
        original_size,
        (tile["height"], tile["width"]),
        image_option(processor, "min_patches"),
        image_option(processor, "max_patches"),
    )
    return rows, cols
