"""InternVL: tiles of equal size in raster order, then a thumbnail of the whole when there is more than one
tile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vea_sdk.adapters.base import Adapter
from vea_sdk.adapters.canvas import Canvas, raster, tile_mosaic
from vea_sdk.adapters.geometry import ImageLayout
from vea_sdk.adapters.options import image_option, size_option


class InternVLAdapter(Adapter):
    """The picture is resized, aspect ratio not kept, to the arrangement of tiles nearest to its aspect ratio;
    a pixel shuffle makes one token of 2 × 2 patches.

    The arrangement leaves no trace in the processor's output, so it is recomputed; without tiling
    (``crop_to_patches=False``) the picture is one tile.
    """

    model_types = ("internvl",)

    def lay_out(
        self, inputs: Mapping[str, Any], image_sizes: Sequence[tuple[int, int]], processor: Any
    ) -> list[ImageLayout]:
        one_tile = [self._layout(size, (1, 1), processor) for size in image_sizes]
        if self.fits(inputs["input_ids"], one_tile):
            return one_tile
        return [self._layout(size, tile_arrangement(size, processor), processor) for size in image_sizes]

    def _layout(self, original_size: tuple[int, int], tiles: tuple[int, int], processor: Any) -> ImageLayout:
        tile = size_option(processor, "size")
        tile_rows, tile_cols = tiles
        canvas = Canvas.of(original_size).resized(tile["height"] * tile_rows, tile["width"] * tile_cols)
        patch_height, patch_width = self.config.vision_config.patch_size
        rows = int(tile["height"] // patch_height * self.config.downsample_ratio)
        cols = int(tile["width"] // patch_width * self.config.downsample_ratio)
        grids = [canvas.grid(tile_mosaic(tile_rows, tile_cols, rows, cols))]
        n_tokens = tile_rows * tile_cols * rows * cols
        if tile_rows * tile_cols > 1:
            grids.append(canvas.grid(raster(rows, cols, first_token=n_tokens)))
            n_tokens += rows * cols
        return ImageLayout(original_size, canvas.size, canvas.region, n_tokens, tuple(grids))


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
