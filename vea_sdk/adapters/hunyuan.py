"""HunYuan-VL and Hy4: a raster with a line end after each row; in HunYuan-VL between a begin and an end token, too. All
of them are placeholders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from vea_sdk.adapters.base import Adapter
from vea_sdk.adapters.canvas import Canvas, raster
from vea_sdk.adapters.geometry import ImageLayout


class HunYuanVLAdapter(Adapter):
    """The picture is resized to whole tokens; one token stands for spatial_merge_size² patches."""

    model_types = ("hunyuan_vl",)

    framed: ClassVar[int] = 1
    """Tokens before the raster, and as many after it."""

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
            grid = canvas.grid(raster(rows, cols, first_token=self.framed, row_stride=cols + 1))
            n_tokens = rows * (cols + 1) + 2 * self.framed
            layouts.append(ImageLayout(size, canvas.size, canvas.region, n_tokens, (grid,)))
        return layouts


class HYV4VLAdapter(HunYuanVLAdapter):
    model_types = ("hy_v4_vl",)
    framed = 0
