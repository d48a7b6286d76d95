"""Qwen2-VL and Qwen2.5-VL: the picture at its own resolution, 2 × 2 patches merged into one token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vea_sdk.adapters.base import Adapter
from vea_sdk.adapters.canvas import Canvas
from vea_sdk.adapters.frames import merged_patches
from vea_sdk.adapters.geometry import ImageLayout


class QwenVLAdapter(Adapter):
    """The whole picture is resized to multiples of a merged patch, and the processor says to how many
    (``image_grid_thw``). Patches are merged in place and the vision tower's window order is undone before the
    language model, so tokens come in raster order."""

    model_types = ("qwen2_vl", "qwen2_5_vl")

    def lay_out(
        self, inputs: Mapping[str, Any], image_sizes: Sequence[tuple[int, int]], processor: Any
    ) -> list[ImageLayout]:
        grids = inputs["image_grid_thw"].tolist()
        self.check_pictures(len(image_sizes), len(grids))
        vision = self.config.vision_config
        return [
            merged_patches(size, (rows, cols), vision.patch_size, vision.spatial_merge_size)
            for size, (_, rows, cols) in zip(image_sizes, grids, strict=True)
        ]

    def canvases(self, layout: ImageLayout, processor: Any) -> list[Canvas]:
        return [Canvas(layout.input_region, layout.input_size)]
