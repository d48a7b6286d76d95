"""Gemma 4: the picture at its own aspect ratio, kernel × kernel patches pooled into one token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vea_sdk.adapters.base import Adapter
from vea_sdk.adapters.frames import VideoLayout, VideoSize
from vea_sdk.adapters.generic import whole_pictures
from vea_sdk.adapters.geometry import ImageLayout


class Gemma4Adapter(Adapter):
    """The processor names the place (x, y) of every patch, (−1, −1) for padding; the largest of them give the grid.
    The unified model merges the patches before it places them, so there each place is a token."""

    model_types = ("gemma4", "gemma4_unified")

    def lay_out(
        self, inputs: Mapping[str, Any], image_sizes: Sequence[tuple[int, int]], processor: Any
    ) -> list[ImageLayout]:
        places = inputs["image_position_ids"]  # [pictures, places, 2]
        self.check_pictures(len(image_sizes), len(places))
        cols, rows = (places.amax(dim=1) + 1).T.tolist()
        grids = list(zip(rows, cols, strict=True))
        pooled = whole_pictures(image_sizes, grids, self.config.vision_config.pooling_kernel_size)
        return pooled if self.fits(inputs["input_ids"], pooled) else whole_pictures(image_sizes, grids, 1)

    def lay_out_videos(
        self, inputs: Mapping[str, Any], video_sizes: Sequence[VideoSize], processor: Any
    ) -> list[VideoLayout]:
        """Every frame a step of its own; its places as those of a picture."""
        places = inputs["video_position_ids"]  # [frames of all videos, places, 2]
        cols, rows = (places.amax(dim=1) + 1).T.tolist()
        total = int(self.is_video(inputs["input_ids"]).sum())
        pool = int(self.config.vision_config.pooling_kernel_size)
        merge = pool if total == sum(r // pool * (c // pool) for r, c in zip(rows, cols, strict=True)) else 1
        layouts, first = [], 0
        for n_frames, size in video_sizes:
            grids = list(zip(rows, cols, strict=True))[first : first + n_frames]
            first += n_frames
            layouts.append(VideoLayout.of(whole_pictures([size] * len(grids), grids, merge), n_frames))
        return layouts
