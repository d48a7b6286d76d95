"""Inkling and its successors: one token per square of pixels, the picture padded at the right and the bottom."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import nn

from vea_sdk.adapters.canvas import Canvas
from vea_sdk.adapters.generic import GenericAdapter
from vea_sdk.adapters.geometry import ImageLayout
from vea_sdk.adapters.options import image_option, size_option


class InklingAdapter(GenericAdapter):
    """Inkling adds a column of padding when the width is a whole number of squares, and may scale the picture first;
    Inkling 2 does neither. The token count says which: ``extra_column``."""

    model_types: ClassVar[tuple[str, ...]] = ("inkling_mm_model", "inkling2")

    def lay_out(
        self, inputs: Mapping[str, Any], image_sizes: Sequence[tuple[int, int]], processor: Any
    ) -> list[ImageLayout]:
        side = size_option(processor, "size")["height"]
        plain = [squares(size, size, side, extra_column=False) for size in image_sizes]
        if "image_grid_thw" in inputs:
            self.check_pictures(len(image_sizes), len(inputs["image_grid_thw"]))
            return plain
        return [squares(size, scaled(size, processor), side, extra_column=True) for size in image_sizes]


class Inkling2LoopAdapter(InklingAdapter):
    """Some layers run several times in a pass. Each of their runs is a layer here, numbered in the order in which they
    run, like the entries of the model's ``attentions``."""

    model_types = ("inkling2_loop",)

    @property
    def n_layers(self) -> int:
        return int(self.config.text_config.total_num_hidden_layers)

    def attention_modules(self) -> dict[int, nn.Module]:
        blocks, text = super().attention_modules(), self.config.text_config
        loop = range(text.loop_layer_index_start, text.loop_layer_index_end)
        order = [*range(loop.stop), *(text.loop_num_passes - 1) * [*loop], *range(loop.stop, len(blocks))]
        return {number: blocks[block] for number, block in enumerate(order)}


def squares(original_size: tuple[int, int], resized: tuple[int, int], side: int, extra_column: bool) -> ImageLayout:
    rows = math.ceil(resized[0] / side)
    cols = resized[1] // side + 1 if extra_column else math.ceil(resized[1] / side)
    canvas = Canvas.of(original_size).resized(*resized).cropped(0, 0, rows * side, cols * side)
    tokens = canvas.patches(side, side)
    return ImageLayout(original_size, canvas.size, canvas.region, rows * cols, (tokens,))


def scaled(original_size: tuple[int, int], processor: Any) -> tuple[int, int]:
    """(height, width) after the optional scaling, which limits how far the longer side may grow."""
    factor = image_option(processor, "rescale_image_frac")
    if factor is None:
        return original_size
    long = max(original_size)
    target = long * factor
    limit = image_option(processor, "rescale_image_max_upscaled_long_edge")
    if limit is not None:
        target = min(target, max(limit, long))
    height, width = (math.floor(edge * target / long + 0.5) for edge in original_size)
    return height, width
