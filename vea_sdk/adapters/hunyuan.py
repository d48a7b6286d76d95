"""HunYuan-VL: a raster with a line end after each row, between a begin and an end token, all of them placeholders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vea_sdk.adapters.base import Adapter
from vea_sdk.adapters.canvas import Canvas, raster
from vea_sdk.adapters.geometry import ImageLayout


class HunYuanVLAdapter(Adapter):
    """The picture is resized to whole tokens; one token stands for spatial_merge_size² patches."""

    model_types = ("hunyuan_vl",)

    def lay_out(
        self, inputs: Mapping[str, Any], image_sizes: Sequence[tuple[int, int]], processor: Any
    ) -> list[ImageLayout]:
        grids = inputs["image_grid_thw"].tolist()
        self.check_pictures(len(image_sizes), len(grids))
        vision = self.config.vision_config
        layouts = []
        for size, (_, height, width) in zip(image_sizes, grids, strict=True):
            rows, cols = height // vision.spatial_merge_size, width // vision.spatial_merge_size
            canvas = Canvas.of(size).resized(height * vision.patch_size, width * vision.patch_size)
            grid = canvas.grid(raster(rows, cols, first_token=1, row_stride=cols + 1))
            layouts.append(ImageLayout(size, canvas.size, canvas.region, rows * (cols + 1) + 2, (grid,)))
        return layouts
