"""Pictures cut into tiles of equal size, in raster order, and a thumbnail of the whole beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vea_sdk.adapters.base import Adapter
from vea_sdk.adapters.canvas import Canvas, raster, tile_mosaic
from vea_sdk.adapters.geometry import ImageLayout


class TilesAdapter(Adapter):
    """The picture is resized, aspect ratio not kept, to fill an arrangement of tiles; when there is more than one, a
    thumbnail of the whole picture comes last.

    The arrangement leaves no trace in the processor's output, so it is recomputed. Without tiling every picture is
    one tile: that is taken when, and only when, it accounts for the image tokens.
    """

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
        one_tile = [self._layout(size, (1, 1), processor) for size in image_sizes]
        if self.fits(inputs["input_ids"], one_tile):
            return one_tile
        return [self._layout(size, self.arrangement(size, processor), processor) for size in image_sizes]

    def _layout(self, original_size: tuple[int, int], tiles: tuple[int, int], processor: Any) -> ImageLayout:
        height, width = self.tile_size(processor)
        rows, cols = self.tile_tokens(processor)
        tile_rows, tile_cols = tiles
        canvas = Canvas.of(original_size).resized(height * tile_rows, width * tile_cols)
        grids = [canvas.grid(tile_mosaic(tile_rows, tile_cols, rows, cols))]
        n_tokens = tile_rows * tile_cols * rows * cols
        if tile_rows * tile_cols > 1:
            grids.append(canvas.grid(raster(rows, cols, first_token=n_tokens)))
            n_tokens += rows * cols
        return ImageLayout(original_size, canvas.size, canvas.region, n_tokens, tuple(grids))
