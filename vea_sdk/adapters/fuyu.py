"""Fuyu: patches of the picture at its own size, the last ones filled up with padding."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from vea_sdk.adapters.base import Adapter
from vea_sdk.adapters.canvas import Canvas
from vea_sdk.adapters.geometry import ImageLayout
from vea_sdk.adapters.options import image_option, size_option
from vea_sdk.adapters.prompting import Pictures, only_pictures


class FuyuAdapter(Adapter):
    """Only pictures beyond the largest size are scaled down, aspect ratio kept. Patches start at the top left corner
    and overhang the picture at the right and the bottom. The newline token behind a row is no placeholder."""

    model_types = ("fuyu",)

    def prepare(self, processor: Any, pictures: Pictures, texts: Sequence[str], padding: Mapping[str, Any]) -> Any:
        """The processor puts the picture before the text, and pads by itself on the left. A line ends the question."""
        rows = [[picture] for picture in only_pictures(self.name, pictures)]
        return processor(images=rows, text=[text + "\n" for text in texts], return_legacy_image_output=False)

    def lay_out(
        self, inputs: Mapping[str, Any], image_sizes: Sequence[tuple[int, int]], processor: Any
    ) -> list[ImageLayout]:
        largest, patch = size_option(processor, "size"), size_option(processor, "patch_size")
        layouts = []
        for size in image_sizes:
            height, width = size
            scale = min(largest["height"] / height, largest["width"] / width)
            canvas = Canvas.of(size)
            if scale < 1 and image_option(processor, "do_resize"):
                canvas = canvas.resized(int(height * scale), int(width * scale))
            rows = math.ceil(canvas.size[0] / patch["height"])
            cols = math.ceil(canvas.size[1] / patch["width"])
            canvas = canvas.cropped(0, 0, rows * patch["height"], cols * patch["width"])
            grid = canvas.patches(patch["height"], patch["width"])
            layouts.append(ImageLayout(size, canvas.size, canvas.region, rows * cols, (grid,)))
        return layouts
