"""Gemma 3: the picture squeezed into a square; with pan-and-scan also its crops, each squeezed the same
way."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from vea_sdk.adapters.base import Adapter
from vea_sdk.adapters.canvas import Canvas, raster
from vea_sdk.adapters.geometry import ImageLayout
from vea_sdk.adapters.options import image_option, size_option


class Gemma3Adapter(Adapter):
    """Both sides are resized plainly, the aspect ratio is not kept, and patches are average-pooled to a
    square grid.

    Pan-and-scan is off by default and its crops leave no trace in the processor's output, so they are
    recomputed and taken when, and only when, the prompt holds as many image tokens.
    """

    model_types: ClassVar[tuple[str, ...]] = ("gemma3",)

    @property
    def tokens_per_picture(self) -> int:
        return int(self.config.mm_tokens_per_image)

    def lay_out(
        self, inputs: Mapping[str, Any], image_sizes: Sequence[tuple[int, int]], processor: Any
    ) -> list[ImageLayout]:
        plain = [self._layout(size, [], processor) for size in image_sizes]
        if self.fits(inputs["input_ids"], plain):
            return plain
        return [self._layout(size, pan_and_scan(size, processor), processor) for size in image_sizes]

    def _layout(self, original_size: tuple[int, int], crops: list[Canvas], processor: Any) -> ImageLayout:
        per_side = math.isqrt(self.tokens_per_picture)
        block = per_side * per_side
        pictures = [c.resized_to(size_option(processor, "size")) for c in (Canvas.of(original_size), *crops)]
        grids = tuple(
            canvas.grid(raster(per_side, per_side, first_token=i * block)) for i, canvas in enumerate(pictures)
        )
        return ImageLayout(original_size, pictures[0].size, pictures[0].region, block * len(grids), grids)

    def canvases(self, layout: ImageLayout, processor: Any) -> list[Canvas]:
        return [Canvas(grid.region, layout.input_size) for grid in layout.grids]


def pan_and_scan(original_size: tuple[int, int], processor: Any) -> list[Canvas]:
    """The crops of a long picture: it is cut across its longer side into about as many parts as its aspect
    ratio, none smaller than the least crop size. The last part is the smaller one when the length does not
    divide."""
    short, long = sorted(original_size)
    least = image_option(processor, "pan_and_scan_min_crop_size")
    most_crops = image_option(processor, "pan_and_scan_max_num_crops")
    if long / short < image_option(processor, "pan_and_scan_min_ratio_to_activate"):
        return []
    n_crops = min(math.floor(long / short + 0.5), long // least)
    n_crops = min(max(n_crops, 2), most_crops)
    step = math.ceil(long / n_crops)
    if min(step, short) < least:
        return []
    height, width = original_size
    picture = Canvas.of(original_size)
    starts = range(0, n_crops * step, step)
    if width >= height:
        return [picture.cropped(0, x, height, min(step, width - x)) for x in starts]
    return [picture.cropped(y, 0, min(step, height - y), width) for y in starts]


class ShieldGemma2Adapter(Gemma3Adapter):
    """Gemma 3 that judges a picture by policies, which its processor makes into prompts."""

    model_types = ("shieldgemma2",)
    no_question = "it judges a picture by policies, from which its processor makes the prompts"
