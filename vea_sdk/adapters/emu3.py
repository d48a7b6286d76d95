"""Emu3: the picture at its own aspect ratio, one code per token, an end-of-line token behind each row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vea_sdk.adapters.base import Adapter
from vea_sdk.adapters.canvas import Canvas, raster
from vea_sdk.adapters.geometry import ImageLayout


class Emu3Adapter(Adapter):
    """The processor returns the sizes of the resized pictures. Ends of lines are placeholders as well: they stand for
    no pixel."""

    model_types = ("emu3",)

    def lay_out(
        self, inputs: Mapping[str, Any], image_sizes: Sequence[tuple[int, int]], processor: Any
    ) -> list[ImageLayout]:
        resized = inputs["image_sizes"].tolist()
        self.check_pictures(len(image_sizes), len(resized))
        stride = processor.downsample_ratio
        layouts = []
        for size, (height, width) in zip(image_sizes, resized, strict=True):
            rows, cols = height // stride, width // stride
            canvas = Canvas.of(size).resized(height, width)
            grid = canvas.grid(raster(rows, cols, row_stride=cols + 1))
            layouts.append(ImageLayout(size, canvas.size, canvas.region, rows * (cols + 1), (grid,)))
        return layouts
