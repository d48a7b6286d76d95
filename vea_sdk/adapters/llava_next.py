"""LLaVA-NeXT: the whole picture once, then a mosaic of tiles without its padding, a line-end token after
each row."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from vea_sdk.adapters.base import Adapter
from vea_sdk.adapters.canvas import Canvas, raster
from vea_sdk.adapters.frames import VideoLayout, VideoSize, frame_by_frame, frame_canvas, patched
from vea_sdk.adapters.geometry import ImageLayout


class LlavaNextAdapter(Adapter):
    """The tile mosaic is the grid point nearest to the picture's size; the picture is scaled to fit and
    padded on both sides, and the model drops the rows or columns of tokens that hold padding only."""

    model_types: ClassVar[tuple[str, ...]] = ("llava_next",)

    def lay_out(
        self, inputs: Mapping[str, Any], image_sizes: Sequence[tuple[int, int]], processor: Any
    ) -> list[ImageLayout]:
        seen_sizes = inputs["image_sizes"].tolist()
        self.check_pictures(len(image_sizes), len(seen_sizes))
        return [self._layout(size, tuple(seen)) for size, seen in zip(image_sizes, seen_sizes, strict=True)]

    @property
    def tile_side(self) -> int:
        """Tokens along a tile's side."""
        vision = self.config.vision_config
        return int(vision.image_size // vision.patch_size)

    def shrunk(self, rows: int, cols: int) -> tuple[int, int]:
        """(rows, cols) of the mosaic after the model has made fewer tokens of it; here it keeps all."""
        return rows, cols

    def _layout(self, original_size: tuple[int, int], seen_size: tuple[int, int]) -> ImageLayout:
        from transformers.image_processing_utils import select_best_resolution

        tile, side = self.config.vision_config.image_size, self.tile_side
        picture = Canvas.of(original_size).resized(*seen_size)
        base = picture.grid(raster(side, side))

        height, width = select_best_resolution(seen_size, self.config.image_grid_pinpoints)
        mosaic = fit_and_pad(picture, height, width)
        rows, cols = side * (height // tile), side * (width // tile)
        cut_rows, cut_cols = padding_tokens(seen_size, rows, cols)
        in_tokens = mosaic.resized(rows, cols)
        rows, cols = rows - 2 * cut_rows, cols - 2 * cut_cols
        unpadded = in_tokens.cropped(cut_rows, cut_cols, rows, cols)
        grids = [base]
        if rows and cols:  # a hairline picture can lose every token but the line ends
            rows, cols = self.shrunk(rows, cols)
            grids.insert(0, unpadded.grid(raster(rows, cols, first_token=side * side, row_stride=cols + 1)))

        n_tokens = side * side + rows * (cols + 1)
        return ImageLayout(original_size, mosaic.size, mosaic.region, n_tokens, tuple(grids))

    def canvases(self, layout: ImageLayout, processor: Any) -> list[Canvas]:
        side = self.config.vision_config.image_size
        tiles = Canvas(layout.input_region, layout.input_size).tiles(side, side)
        return [Canvas.of(layout.original_size).resized(side, side), *tiles]


class LlavaNextVideoAdapter(LlavaNextAdapter):
    """Frames are resized and their middle cut out, and their patches pooled; without tiles or line ends."""

    model_types: ClassVar[tuple[str, ...]] = ("llava_next_video",)

    def lay_out_videos(
        self, inputs: Mapping[str, Any], video_sizes: Sequence[VideoSize], processor: Any
    ) -> list[VideoLayout]:
        side = int(self.config.vision_config.patch_size * self.config.spatial_pool_stride)
        return frame_by_frame(video_sizes, lambda size: patched(size, frame_canvas(size, processor), side))


def fit_and_pad(picture: Canvas, height: int, width: int) -> Canvas:
    """The picture scaled to fit into height × width, its aspect ratio kept, and padded to exactly that
    size."""
    seen_height, seen_width = picture.size
    if width / seen_width < height / seen_height:
        fitted = picture.resized(min(math.ceil(seen_height * (width / seen_width)), height), width)
    else:
        fitted = picture.resized(height, min(math.ceil(seen_width * (height / seen_height)), width))
    # Padding is halved downwards at the top left, the odd pixel goes to the bottom right.
    top, left = (height - fitted.size[0]) // 2, (width - fitted.size[1]) // 2
    return fitted.cropped(-top, -left, height, width)


def padding_tokens(seen_size: tuple[int, int], rows: int, cols: int) -> tuple[int, int]:
    """How many token rows at the top (and as many at the bottom), or columns at the left and right, the
    model drops. It works from the aspect ratios alone, in tokens rather than pixels, and rounds to 7
    digits first."""
    height, width = seen_size
    if width / height > cols / rows:
        return (rows - int(round(height * (cols / width), 7))) // 2, 0
    return 0, (cols - int(round(width * (rows / height), 7))) // 2
