"""LFM2-VL: a picture at its own aspect ratio, or tiles of a large one and such a picture as the thumbnail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vea_sdk.adapters.base import Adapter
from vea_sdk.adapters.canvas import Canvas, raster, tile_mosaic
from vea_sdk.adapters.geometry import ImageLayout
from vea_sdk.adapters.options import image_option
from vea_sdk.adapters.tiles import check_tiles


class Lfm2VlAdapter(Adapter):
    """``spatial_shapes`` hold the patches (rows, cols) of every tile; downsample_factor² of them make one token."""

    model_types = ("lfm2_vl",)

    def lay_out(
        self, inputs: Mapping[str, Any], image_sizes: Sequence[tuple[int, int]], processor: Any
    ) -> list[ImageLayout]:
        factor = self.config.downsample_factor
        shapes = [(rows // factor, cols // factor) for rows, cols in inputs["spatial_shapes"].tolist()]
        tiles = [self.arrangement(size, processor) for size in image_sizes]
        thumbnail = bool(image_option(processor, "use_thumbnail"))
        counts = [rows * cols + (thumbnail and rows * cols > 1) for rows, cols in tiles]
        check_tiles(self.name, sum(counts), len(shapes))
        layouts = []
        for size, (rows, cols), count in zip(image_sizes, tiles, counts, strict=True):
            parts = shapes[:count]
            del shapes[:count]
            picture = Canvas.of(size)
            grids = [picture.grid(tile_mosaic(rows, cols, *parts[0]))]
            n_tokens = grids[0].token_index.size
            if count > rows * cols:
                grids.append(picture.grid(raster(*parts[-1], first_token=n_tokens)))
                n_tokens += grids[1].token_index.size
            layouts.append(ImageLayout(size, picture.size, picture.region, n_tokens, tuple(grids)))
        return layouts

    def arrangement(self, original_size: tuple[int, int], processor: Any) -> tuple[int, int]:
        """(rows, cols) of tiles, by the image processor's own rule."""
        height, width = original_size
        rule = processor.image_processor

        def options(*names: str) -> dict[str, Any]:
            return {name: image_option(processor, name) for name in names}

        large = rule._is_image_too_large(
            height=height,
            width=width,
            **options("max_image_tokens", "encoder_patch_size", "downsample_factor", "max_pixels_tolerance"),
        )
        if not (large and image_option(processor, "do_image_splitting")):
            return 1, 1
        cols, rows, *_ = rule._get_grid_layout(height, width, **options("min_tiles", "max_tiles", "tile_size"))
        return rows, cols
