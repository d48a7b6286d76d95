"""GLM 5 Next: the picture made smaller or larger with its aspect ratio, padded at the right and the bottom."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from vea_sdk.adapters.canvas import Canvas
from vea_sdk.adapters.generic import GenericAdapter
from vea_sdk.adapters.geometry import ImageLayout
from vea_sdk.adapters.options import image_option


class Glm5NextAdapter(GenericAdapter):
    """The processor's grid says how large the padded canvas is; the picture fills its height or its width, and is made
    larger only when it is smaller than the fewest tokens allowed."""

    model_types = ("glm5_next",)

    def lay_out(
        self, inputs: Mapping[str, Any], image_sizes: Sequence[tuple[int, int]], processor: Any
    ) -> list[ImageLayout]:
        grids = inputs["image_grid_thw"].tolist()
        self.check_pictures(len(image_sizes), len(grids))
        patch, merge = int(image_option(processor, "patch_size")), int(image_option(processor, "merge_size"))
        least = int(image_option(processor, "min_image_tokens")) * (patch * merge) ** 2  # pixels
        layouts = []
        for size, (_, rows, cols) in zip(image_sizes, grids, strict=True):
            padded = (rows * patch, cols * patch)
            canvas = Canvas.of(size).resized(*fitted(size, padded, least)).cropped(0, 0, *padded)
            tokens = canvas.patches(patch * merge, patch * merge)
            layouts.append(ImageLayout(size, canvas.size, canvas.region, tokens.token_index.size, (tokens,)))
        return layouts


def fitted(original_size: tuple[int, int], padded: tuple[int, int], least: int) -> tuple[int, int]:
    """(height, width) of the picture inside the padded canvas."""
    height, width = original_size
    scale = min(padded[0] / height, padded[1] / width)
    if height * width >= least:
        scale = min(1.0, scale)
    return (
        max(1, min(padded[0], math.floor(height * scale))),
        max(1, min(padded[1], math.floor(width * scale))),
    )
