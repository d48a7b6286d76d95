"""Molmo2: the whole picture first, then a fine raster read from overlapping crops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vea_sdk.adapters.base import Adapter
from vea_sdk.adapters.canvas import Canvas, raster
from vea_sdk.adapters.frames import VideoLayout, VideoSize
from vea_sdk.adapters.geometry import ImageLayout, PatchGrid
from vea_sdk.adapters.options import image_option, size_option, video_option, video_size_option


class Molmo2Adapter(Adapter):
    """``image_grids`` hold (rows, cols) of tokens, low resolution and high. Each token pools ``pooling_size`` patches;
    where their number is odd, the windows at the border reach beyond the picture. Line ends are no placeholders."""

    model_types = ("molmo2",)

    def lay_out(
        self, inputs: Mapping[str, Any], image_sizes: Sequence[tuple[int, int]], processor: Any
    ) -> list[ImageLayout]:
        grids = inputs["image_grids"].tolist()
        self.check_pictures(len(image_sizes), len(grids))
        patch, pool = image_option(processor, "patch_size"), tuple(image_option(processor, "pooling_size"))
        side = size_option(processor, "size")["height"] // patch  # patches along a crop's side
        margin = sum(image_option(processor, "overlap_margins"))
        layouts = []
        for size, (low_rows, low_cols, rows, cols) in zip(image_sizes, grids, strict=True):
            picture = Canvas.of(size)
            low = pooled(picture.resized(side, side), low_rows, low_cols, pool)
            # Crops advance by their side without the margins, so the canvas holds a whole number of such steps.
            step = side - margin
            n_patches = [margin + (n * one - margin) // step * step for n, one in zip((rows, cols), pool, strict=True)]
            high = pooled(picture.resized(*n_patches), rows, cols, pool, first_token=low_rows * low_cols)
            canvas = picture.resized(n_patches[0] * patch, n_patches[1] * patch)
            n_tokens = low_rows * low_cols + rows * cols
            layouts.append(ImageLayout(size, canvas.size, canvas.region, n_tokens, (high, low)))
        return layouts

    def lay_out_videos(
        self, inputs: Mapping[str, Any], video_sizes: Sequence[VideoSize], processor: Any
    ) -> list[VideoLayout]:
        """Frames as pictures of low resolution. The odd patch of a border window is at its bottom and right, too."""
        patch, pool = video_option(processor, "patch_size"), tuple(video_option(processor, "pooling_size"))
        pixels = video_size_option(processor, "size")["height"]
        layouts = []
        for (n_frames, size), (n_steps, rows, cols) in zip(video_sizes, inputs["video_grids"].tolist(), strict=True):
            patches = Canvas.of(size).resized(pixels // patch, pixels // patch)
            canvas = patches.resized(pixels, pixels)
            grid = pooled(patches, rows, cols, pool)
            step = ImageLayout(size, canvas.size, canvas.region, rows * cols, (grid,))
            layouts.append(VideoLayout.of([step] * n_steps, n_frames))
        return layouts


def pooled(patches: Canvas, rows: int, cols: int, pool: tuple[int, int], first_token: int = 0) -> PatchGrid:
    """A canvas of one pixel per patch, covered by rows × cols windows; what they have too much is split evenly, the
    odd patch at the bottom and the right."""
    height, width = rows * pool[0], cols * pool[1]
    top, left = (height - patches.size[0]) // 2, (width - patches.size[1]) // 2
    return patches.cropped(-top, -left, height, width).grid(raster(rows, cols, first_token))
