"""VideoLLaMA 3: pictures and frames at their own resolution; what does not change between frames is dropped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vea_sdk.adapters.frames import VideoLayout, VideoSize
from vea_sdk.adapters.generic import GenericAdapter
from vea_sdk.errors import GeometryError


class VideoLlama3Adapter(GenericAdapter):
    """``video_compression_mask`` says which tokens are kept; with gaps they fill no grid."""

    model_types = ("video_llama_3",)

    def lay_out_videos(
        self, inputs: Mapping[str, Any], video_sizes: Sequence[VideoSize], processor: Any
    ) -> list[VideoLayout]:
        kept = inputs.get("video_compression_mask")
        if kept is not None and not kept.all():
            raise GeometryError(
                f"{self.name}: its processor dropped {int((~kept).sum())} of {kept.numel()} tokens, where a frame does "
                "not differ from the one before, and the rest fills no grid. Set "
                "processor.video_processor.use_token_compression = False to keep all."
            )
        return super().lay_out_videos(inputs, video_sizes, processor)
