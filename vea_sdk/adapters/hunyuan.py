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
        return [
            self.lay_out_frame(size, (rows, cols), processor)
            for size, (_, rows, cols) in zip(image_sizes, grids, strict=True)
        ]

    def lay_out_frame(self, size: tuple[int, int], patch_grid: tuple[int, int], processor: Any) -> ImageLayout:
        """A picture or a frame."""
        vision = self.config.vision_config
        rows, cols = (patches // vision.spatial_merge_size for patches in patch_grid)
        canvas = Canvas.of(size).resized(*(patches * vision.patch_size for patches in patch_grid))
        grid = canvas.grid(raster(rows, cols, first_token=self.framed, row_stride=cols + 1))
        return ImageLayout(size, canvas.size, canvas.region, rows * (cols + 1) + 2 * self.framed, (grid,))


class HYV4VLAdapter(HunYuanVLAdapter):
    model_types = ("hy_v4_vl",)
    framed = 0
