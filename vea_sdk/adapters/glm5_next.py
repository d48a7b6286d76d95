"""GLM 5 Next: the picture made smaller or larger with its aspect ratio, padded at the right and the bottom."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from vea_sdk.adapters.canvas import Canvas
from vea_sdk.adapters.frames import VideoLayout, VideoSize, patched
from vea_sdk.adapters.generic import GenericAdapter
from vea_sdk.adapters.geometry import ImageLayout
from vea_sdk.adapters.options import image_option, video_option


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
        return [
            padded_patches(size, (rows * patch, cols * patch), patch * merge, least)
            for size, (_, rows, cols) in zip(image_sizes, grids, strict=True)
        ]

    def lay_out_videos(
        self, inputs: Mapping[str, Any], video_sizes: Sequence[VideoSize], processor: Any
    ) -> list[VideoLayout]:
        """As pictures; the fewest tokens allowed are the whole video's, ``temporal_patch_size`` frames in each."""
        patch, merge = int(video_option(processor, "patch_size")), int(video_option(processor, "merge_size"))
        together = self.frames_per_step(processor)
        least = int(video_option(processor, "min_image_tokens")) * (patch * merge) ** 2 * together
        layouts = []
        for (n_frames, size), (n_steps, rows, cols) in zip(video_sizes, inputs["video_grid_thw"].tolist(), strict=True):
            step = padded_patches(size, (rows * patch, cols * patch), patch * merge, least / n_frames)
            layouts.append(VideoLayout.of([step] * n_steps, n_frames, together))
        return layouts


def padded_patches(size: tuple[int, int], padded: tuple[int, int], token: int, least: float) -> ImageLayout:
    """A picture on a canvas of ``padded`` (height, width) pixels, cut into tokens of ``token`` pixels a side."""
    return patched(size, Canvas.of(size).resized(*fitted(size, padded, least)).cropped(0, 0, *padded), token)


def fitted(original_size: tuple[int, int], padded: tuple[int, int], least: float) -> tuple[int, int]:
    """(height, width) of the picture inside the padded canvas."""
    height, width = original_size
    scale = min(padded[0] / height, padded[1] / width)
    if height * width >= least:
        scale = min(1.0, scale)
    return (
        max(1, min(padded[0], math.floor(height * scale))),
        max(1, min(padded[1], math.floor(width * scale))),
    )
