"""Video-LLaVA: a square picture or frames of the same size, the tower's class token before the patches of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vea_sdk.adapters.frames import VideoLayout, VideoSize, frame_by_frame, frame_canvas
from vea_sdk.adapters.generic import GenericAdapter
from vea_sdk.adapters.geometry import ImageLayout


class VideoLlavaAdapter(GenericAdapter):
    """Frames have a tower of their own; its class token is kept and stands for no pixel."""

    model_types = ("video_llava",)

    def lay_out_videos(
        self, inputs: Mapping[str, Any], video_sizes: Sequence[VideoSize], processor: Any
    ) -> list[VideoLayout]:
        extra = processor.num_additional_image_tokens

        def step(size: tuple[int, int]) -> ImageLayout:
            canvas = frame_canvas(size, processor)
            patches = canvas.patches(processor.patch_size, processor.patch_size, first_token=extra)
            return ImageLayout(size, canvas.size, canvas.region, patches.token_index.size + extra, (patches,))

        return frame_by_frame(video_sizes, step)
