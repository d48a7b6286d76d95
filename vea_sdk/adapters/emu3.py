"""Emu3 and Apertus 1.5: the picture at its own aspect ratio, one code per token, an end-of-line token behind rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vea_sdk.adapters.base import Adapter
from vea_sdk.adapters.canvas import Canvas, raster
from vea_sdk.adapters.generic import GenericAdapter
from vea_sdk.adapters.geometry import ImageLayout
from vea_sdk.adapters.options import image_option


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


class Apertus1p5Adapter(GenericAdapter):
    """Ends of lines are no placeholders here, and the side of a code in pixels has a name of its own."""

    model_types = ("apertus1p5",)

    def patch_size(self, processor: Any) -> int:
        return int(image_option(processor, "spatial_factor"))
