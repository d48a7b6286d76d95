"""Pictures cut into tiles of equal size, in raster order, and a thumbnail of the whole beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from vea_sdk.adapters.base import Adapter
from vea_sdk.adapters.canvas import Canvas, raster, tile_mosaic
from vea_sdk.adapters.frames import VideoLayout, VideoSize, frame_by_frame
from vea_sdk.adapters.geometry import ImageLayout
from vea_sdk.errors import GeometryError


class TilesAdapter(Adapter):
    """The picture is resized, aspect ratio not kept, to fill an arrangement of tiles; when there is more than one, a
    thumbnail of the whole picture comes last (or first, ``thumbnail_first``).

    The arrangement leaves no trace in the processor's output, so it is recomputed. Without tiling every picture is
    one tile: that is taken when, and only when, it accounts for the image tokens.
    """

    thumbnail_first: ClassVar[bool] = False
    thumbnail_of_one_tile: ClassVar[bool] = False

    def tile_size(self, processor: Any) -> tuple[int, int]:
        """(height, width) of a tile in pixels."""
        raise NotImplementedError

    def tile_tokens(self, processor: Any) -> tuple[int, int]:
        """(rows, cols) of tokens in a tile."""
        raise NotImplementedError

    def arrangement(self, original_size: tuple[int, int], processor: Any) -> tuple[int, int]:
        """(rows, cols) of tiles, by the image processor's own rule."""
        raise NotImplementedError

    def lay_out(
        self, inputs: Mapping[str, Any], image_sizes: Sequence[tuple[int, int]], processor: Any
    ) -> list[ImageLayout]:
        one_tile = [self._layout(size, (1, 1), False, processor) for size in image_sizes]
        if self.fits(inputs["input_ids"], one_tile):
            return one_tile
        layouts = []
        for size in image_sizes:
            rows, cols = self.arrangement(size, processor)
            thumbnail = rows * cols > 1 or self.thumbnail_of_one_tile
            layouts.append(self._layout(size, (rows, cols), thumbnail, processor))
        return layouts

    def lay_out_videos(
        self, inputs: Mapping[str, Any], video_sizes: Sequence[VideoSize], processor: Any
    ) -> list[VideoLayout]:
        """Every frame is one tile, without a thumbnail."""
        return frame_by_frame(video_sizes, lambda size: self._layout(size, (1, 1), False, processor))

    def canvas(self, original_size: tuple[int, int], size: tuple[int, int], processor: Any) -> Canvas:
        """The picture on the canvas of all tiles, ``size`` (height, width); here it is resized to fill it."""
        return Canvas.of(original_size).resized(*size)

    def _layout(
        self, original_size: tuple[int, int], tiles: tuple[int, int], thumbnail: bool, processor: Any
    ) -> ImageLayout:
        height, width = self.tile_size(processor)
        rows, cols = self.tile_tokens(processor)
        tile_rows, tile_cols = tiles
        canvas = self.canvas(original_size, (height * tile_rows, width * tile_cols), processor)
        before = rows * cols if thumbnail and self.thumbnail_first else 0
        grids = [canvas.grid(tile_mosaic(tile_rows, tile_cols, rows, cols, before))]
        n_tokens = tile_rows * tile_cols * rows * cols
        if thumbnail:
            first_token = 0 if self.thumbnail_first else n_tokens
            grids.append(Canvas.of(original_size).grid(raster(rows, cols, first_token)))
            n_tokens += rows * cols
        return ImageLayout(original_size, canvas.size, canvas.region, n_tokens, tuple(grids))


def check_tiles(model: str, expected: int, seen: int) -> None:
    """Raises GeometryError unless the processor made as many tiles as its settings lead to."""
    if expected != seen:
        raise GeometryError(
            f"{model}: the processor's settings lead to {expected} tiles for these image_sizes, but its output holds "
            f"{seen}. Give the (height, width) of the original pictures in prompt order, and set options on the "
            "processor, not in the call to it."
        )
