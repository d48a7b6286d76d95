"""LLaVA-OneVision: a picture alone in its prompt as in LLaVA-NeXT, each of several as one padded square."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from vea_sdk.adapters.base import Adapter
from vea_sdk.adapters.canvas import Canvas, raster
from vea_sdk.adapters.frames import VideoLayout, VideoSize, frame_by_frame, frame_canvas
from vea_sdk.adapters.geometry import ImageLayout
from vea_sdk.adapters.llava_next import LlavaNextAdapter


class LlavaOnevisionAdapter(LlavaNextAdapter):
    """A mosaic of many more tokens than ``vision_aspect_ratio`` allows ("anyres_max_9": nine tiles) is scaled down."""

    model_types = ("llava_onevision",)

    def lay_out(
        self, inputs: Mapping[str, Any], image_sizes: Sequence[tuple[int, int]], processor: Any
    ) -> list[ImageLayout]:
        seen_sizes = inputs["image_sizes"].tolist()
        self.check_pictures(len(image_sizes), len(seen_sizes))
        in_prompt = [n for n in inputs["batch_num_images"].tolist() for _ in range(n)]
        return [
            self._layout(size, tuple(seen)) if n == 1 else self._one_of_several(size)
            for size, seen, n in zip(image_sizes, seen_sizes, in_prompt, strict=True)
        ]

    def shrunk(self, rows: int, cols: int) -> tuple[int, int]:
        most_tiles = int(self.config.vision_aspect_ratio.removeprefix("anyres_max_"))
        ratio = math.sqrt(rows * cols / (most_tiles * self.tile_side**2))
        return (int(rows // ratio), int(cols // ratio)) if ratio > 1.1 else (rows, cols)

    def canvases(self, layout: ImageLayout, processor: Any) -> list[Canvas]:
        if len(layout.grids) == 1:  # one of several: padded with the processor's mean colour, before the resize
            return Adapter.canvases(self, layout, processor)
        return super().canvases(layout, processor)

    def lay_out_videos(
        self, inputs: Mapping[str, Any], video_sizes: Sequence[VideoSize], processor: Any
    ) -> list[VideoLayout]:
        """Half as many tokens along each side as patches, rounded up, by bilinear resampling; a line end closes the
        video."""
        side = math.ceil(self.tile_side / 2)

        def step(size: tuple[int, int]) -> ImageLayout:
            canvas = frame_canvas(size, processor)
            return ImageLayout(size, canvas.size, canvas.region, side * side, (canvas.grid(raster(side, side)),))

        return frame_by_frame(video_sizes, step, beyond=1)

    def _one_of_several(self, original_size: tuple[int, int]) -> ImageLayout:
        side, tile = self.tile_side, self.config.vision_config.image_size
        canvas = Canvas.of(original_size).padded_to_square().resized(tile, tile)
        grid = canvas.grid(raster(side, side))
        return ImageLayout(original_size, canvas.size, canvas.region, side * side + 1, (grid,))
