"""Nemotron Omni: the picture's own aspect ratio, pixels shuffled into channels; frames of videos in groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vea_sdk.adapters.frames import VideoLayout, VideoSize, merged_patches
from vea_sdk.adapters.generic import GenericAdapter


class NemotronOmniAdapter(GenericAdapter):
    """A video's frames bear the image's token id, ``video_temporal_patch_dim`` of them in one step. All videos of a
    call are of one size."""

    model_types = ("nemotron_h_omni",)

    def lay_out_videos(
        self, inputs: Mapping[str, Any], video_sizes: Sequence[VideoSize], processor: Any
    ) -> list[VideoLayout]:
        groups, _, height, width = inputs["pixel_values_videos"].shape[1:]
        patch, merge = processor.video_processor.patch_size, round(1 / processor.video_processor.downsample_ratio)
        together, grid = processor.video_temporal_patch_dim, (height // patch, width // patch)
        return [
            VideoLayout.of([merged_patches(size, grid, patch, merge)] * groups, n_frames, together)
            for n_frames, size in video_sizes
        ]
