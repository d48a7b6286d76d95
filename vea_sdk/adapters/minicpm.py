"""MiniCPM-V 4.6, 4.7 and MiniCPM-OCR: the whole picture first, then slices of it in raster order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from vea_sdk.adapters.base import Adapter
from vea_sdk.adapters.canvas import Canvas, raster, tile_mosaic
from vea_sdk.adapters.frames import VideoLayout, VideoSize
from vea_sdk.adapters.geometry import ImageLayout, PatchGrid
from vea_sdk.adapters.options import image_option, video_option
from vea_sdk.adapters.tiles import check_tiles


class MiniCPMVAdapter(Adapter):
    """``target_sizes`` hold the patches (rows, cols) of the overview and of every slice; 2 × 2 of them make one token
    in the processor's "4x" mode, else 4 × 4. Slices of one size make a mosaic; the adaptive mode of MiniCPM-OCR gives
    each slice a size of its own, and then each is a grid of its own."""

    model_types = ("minicpm_ocr", "minicpmv4_6", "minicpmv4_7")

    def lay_out(
        self, inputs: Mapping[str, Any], image_sizes: Sequence[tuple[int, int]], processor: Any
    ) -> list[ImageLayout]:
        option = partial(image_option, processor)
        slices = [self.slices(size, processor.image_processor, option) for size in image_sizes]
        return self._sliced(inputs["target_sizes"], image_sizes, slices, option("downsample_mode"))

    def lay_out_videos(
        self, inputs: Mapping[str, Any], video_sizes: Sequence[VideoSize], processor: Any
    ) -> list[VideoLayout]:
        """Every frame as a picture, the overview and its slices. With ``stack_frames`` above 1 there are composites of
        several moments besides, and their number is refused."""
        option = partial(video_option, processor)
        frames = [size for n_frames, size in video_sizes for _ in range(n_frames)]
        cut = [self.slices(size, processor.video_processor, option) for size in frames]
        steps = self._sliced(inputs["target_sizes_videos"], frames, cut, option("downsample_mode"))
        layouts, first = [], 0
        for n_frames, _ in video_sizes:
            layouts.append(VideoLayout.of(steps[first : first + n_frames], n_frames))
            first += n_frames
        return layouts

    def _sliced(
        self, target_sizes: Any, image_sizes: Sequence[tuple[int, int]], slices: Sequence[tuple[int, int]], mode: str
    ) -> list[ImageLayout]:
        merge = 2 if mode == "4x" else 4
        tokens = [(rows // merge, cols // merge) for rows, cols in target_sizes.tolist()]
        check_tiles(self.name, sum(1 + rows * cols for rows, cols in slices), len(tokens))
        layouts = []
        for size, (rows, cols) in zip(image_sizes, slices, strict=True):
            overview, *parts = tokens[: 1 + rows * cols]
            del tokens[: 1 + rows * cols]
            picture = Canvas.of(size)
            grids = [picture.grid(raster(*overview))]
            n_tokens = overview[0] * overview[1]
            if parts:
                grids[:0] = slice_grids(picture, (rows, cols), parts, n_tokens)
                n_tokens += sum(height * width for height, width in parts)
            layouts.append(ImageLayout(size, picture.size, picture.region, n_tokens, tuple(grids)))
        return layouts

    def slices(self, original_size: tuple[int, int], rule: Any, option: Callable[[str], Any]) -> tuple[int, int]:
        """(rows, cols) of slices, by the own ``rule`` of an image or video processor with these options; (0, 0) for a
        picture that is not cut."""
        if not option("slice_mode"):
            return 0, 0
        grid = rule.get_sliced_grid(original_size, option("max_slice_nums"), option("scale_resolution"))
        return (grid[0], grid[1]) if grid else (0, 0)


def slice_grids(
    picture: Canvas, slices: tuple[int, int], tokens: Sequence[tuple[int, int]], first_token: int
) -> list[PatchGrid]:
    """One mosaic when all slices have as many tokens (rows, cols), else a grid for each slice."""
    rows, cols = slices
    if len(set(tokens)) == 1:
        return [picture.grid(tile_mosaic(rows, cols, *tokens[0], first_token))]
    grids = []
    for i, (height, width) in enumerate(tokens):
        cell = picture.resized(rows, cols).cropped(i // cols, i % cols, 1, 1)
        grids.append(cell.grid(raster(height, width, first_token)))
        first_token += height * width
    return grids
