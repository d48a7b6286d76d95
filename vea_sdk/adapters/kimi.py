"""Kimi K2.5: the picture at its own resolution, padded at the right and the bottom to whole tokens."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vea_sdk.adapters.canvas import Canvas
from vea_sdk.adapters.frames import patched
from vea_sdk.adapters.generic import GenericAdapter
from vea_sdk.adapters.geometry import ImageLayout
from vea_sdk.adapters.options import image_option, video_option


class KimiAdapter(GenericAdapter):
    """Pictures are only ever made smaller, until the patches of the whole and of each side are few enough."""

    model_types = ("kimi_k25",)

    def lay_out(
        self, inputs: Mapping[str, Any], image_sizes: Sequence[tuple[int, int]], processor: Any
    ) -> list[ImageLayout]:
        grids = inputs["image_grid_thw"].tolist()
        self.check_pictures(len(image_sizes), len(grids))
        return [
            padded_patches(size, (rows, cols), processor, image_option)
            for size, (_, rows, cols) in zip(image_sizes, grids, strict=True)
        ]

    def lay_out_frame(self, size: tuple[int, int], patch_grid: tuple[int, int], processor: Any) -> ImageLayout:
        return padded_patches(size, patch_grid, processor, video_option)

    def steps_of(self, patches: int, processor: Any) -> int:
        return 1  # the frames of one chunk are averaged


Option = Callable[[Any, str], Any]
"""How a setting is read: ``image_option``, or ``video_option``."""


def padded_patches(size: tuple[int, int], patch_grid: tuple[int, int], processor: Any, option: Option) -> ImageLayout:
    """A picture or a frame on a canvas of ``patch_grid`` (rows, cols) patches."""
    patch, merge = int(option(processor, "patch_size")), int(option(processor, "merge_size"))
    rows, cols = patch_grid
    canvas = Canvas.of(size).resized(*shrunk(size, processor, option)).cropped(0, 0, rows * patch, cols * patch)
    return patched(size, canvas, patch * merge)


def shrunk(original_size: tuple[int, int], processor: Any, option: Option) -> tuple[int, int]:
    """(height, width) of the picture before it is padded."""
    height, width = original_size
    patch = option(processor, "patch_size")
    side = option(processor, "size")["max_height"] * patch  # the processor's size counts patches
    patches = max(1, height // patch) * max(1, width // patch)
    scale = min(1.0, math.sqrt(option(processor, "max_patches") / patches), side / height, side / width)
    return min(max(1, int(height * scale)), side), min(max(1, int(width * scale)), side)
