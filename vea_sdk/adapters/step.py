"""Step-3.7: square windows of the picture in raster order, and the whole picture last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vea_sdk.adapters.base import Adapter
from vea_sdk.adapters.canvas import Canvas, raster, tile_mosaic
from vea_sdk.adapters.geometry import ImageLayout
from vea_sdk.adapters.options import image_option, size_option
from vea_sdk.adapters.tiles import check_tiles


class Step3p7Adapter(Adapter):
    """The windows fill the picture evenly, and each has fewer tokens than the whole. Small pictures have no windows;
    narrow ones are padded to a square at the right or the bottom first."""

    model_types = ("step3p7",)

    def lay_out(
        self, inputs: Mapping[str, Any], image_sizes: Sequence[tuple[int, int]], processor: Any
    ) -> list[ImageLayout]:
        counts = [int(n) for n in inputs["num_local_patches"]]
        self.check_pictures(len(image_sizes), len(counts))
        pixels = image_option(processor, "vision_patch_size") * image_option(processor, "downsampler_stride")
        whole, window = size_option(processor, "size")["height"], image_option(processor, "patch_size")
        side, tile = whole // pixels, window // pixels
        layouts = []
        for (height, width), count in zip(image_sizes, counts, strict=True):
            *_, cols, rows, squared = processor.image_processor._plan_patches(width, height, whole, window)
            check_tiles(self.name, rows * cols, count)
            canvas = Canvas.of((height, width))
            if squared:
                canvas = canvas.cropped(0, 0, max(height, width), max(height, width))
            n_tokens = count * tile * tile
            grids = [canvas.grid(raster(side, side, first_token=n_tokens))]
            if count:
                grids.insert(0, canvas.grid(tile_mosaic(rows, cols, tile, tile)))
            layouts.append(
                ImageLayout((height, width), canvas.size, canvas.region, n_tokens + side * side, tuple(grids))
            )
        return layouts
