"""Kimi K2.5: the picture at its own resolution, padded at the right and the bottom to whole tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from vea_sdk.adapters.canvas import Canvas
from vea_sdk.adapters.generic import GenericAdapter
from vea_sdk.adapters.geometry import ImageLayout
from vea_sdk.adapters.options import image_option


class KimiAdapter(GenericAdapter):
    """Pictures are only ever made smaller, until the patches of the whole and of each side are few enough."""

    model_types = ("kimi_k25",)

    def lay_out(
        self, inputs: Mapping[str, Any], image_sizes: Sequence[tuple[int, int]], processor: Any
    ) -> list[ImageLayout]:
        grids = inputs["image_grid_thw"].tolist()
        self.check_pictures(len(image_sizes), len(grids))
        patch = int(image_option(processor, "patch_size"))
        merge = int(image_option(processor, "merge_size"))
        layouts = []
        for size, (_, rows, cols) in zip(image_sizes, grids, strict=True):
            canvas = Canvas.of(size).resized(*shrunk(size, processor)).cropped(0, 0, rows * patch, cols * patch)
            tokens = canvas.patches(patch * merge, patch * merge)
            layouts.append(ImageLayout(size, canvas.size, canvas.region, tokens.token_index.size, (tokens,)))
        return layouts


def shrunk(original_size: tuple[int, int], processor: Any) -> tuple[int, int]:
    """(height, width) of the picture before it is padded."""
    height, width = original_size
    patch = image_option(processor, "patch_size")
    side = image_option(processor, "size")["max_height"] * patch  # the processor's size counts patches
    patches = max(1, height // patch) * max(1, width // patch)
    scale = min(1.0, math.sqrt(image_option(processor, "max_patches") / patches), side / height, side / width)
    return min(max(1, int(height * scale)), side), min(max(1, int(width * scale)), side)
