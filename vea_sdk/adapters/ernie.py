"""Ernie 4.5 VL: the picture at its own resolution; in a video every two frames are merged behind the tower."""

from __future__ import annotations

from typing import Any

from vea_sdk.adapters.generic import GenericAdapter


class ErnieAdapter(GenericAdapter):
    """``video_grid_thw`` counts frames, ``temporal_patch_size`` of which then make one step."""

    model_types = ("ernie4_5_vl_moe",)

    def steps_of(self, patches: int, processor: Any) -> int:
        return patches // self.frames_per_step(processor)
