"""Unlimited-OCR: a raster over all tiles, then the whole picture in a square, each with line ends, then a separator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from vea_sdk.adapters.base import Adapter
from vea_sdk.adapters.canvas import Canvas, raster
from vea_sdk.adapters.geometry import ImageLayout
from vea_sdk.adapters.options import image_option, size_option


class UnlimitedOcrAdapter(Adapter):
    """Line ends and the separator are placeholders, too. Pictures no larger than a tile have no tiles. Attention slides
    over generated tokens only."""

    model_types = ("unlimited_ocr",)
    prompt_stays: ClassVar[bool] = True

    def lay_out(
        self, inputs: Mapping[str, Any], image_sizes: Sequence[tuple[int, int]], processor: Any
    ) -> list[ImageLayout]:
        self.check_pictures(len(image_sizes), len(inputs["patches_grid"]))
        pixels = processor.patch_size * processor.downsample_ratio
        tile, whole = image_option(processor, "tile_size"), max(size_option(processor, "size").values())
        layouts = []
        for size, (cols, rows), count in zip(
            image_sizes, inputs["patches_grid"], inputs["num_local_patches"], strict=True
        ):
            picture = Canvas.of(size)
            grids = []
            n_tokens = 0
            if count:
                height, width = rows * -(-tile // pixels), cols * -(-tile // pixels)
                grids.append(picture.grid(raster(height, width, row_stride=width + 1)))
                n_tokens = height * (width + 1)
            side = -(-whole // pixels)
            square = self.squared(picture, whole, processor)
            grids.append(square.grid(raster(side, side, n_tokens, row_stride=side + 1)))
            n_tokens += side * (side + 1) + 1
            canvas = picture.resized(rows * tile, cols * tile) if count else square
            layouts.append(ImageLayout(size, canvas.size, canvas.region, n_tokens, tuple(grids)))
        return layouts

    def squared(self, picture: Canvas, side: int, processor: Any) -> Canvas:
        """Scaled to fit and padded on both sides; small squares without tiles are filled instead."""
        if not image_option(processor, "crop_to_patches") and side <= image_option(processor, "maximum_pad_value"):
            return picture.resized(side, side)
        height, width = picture.size
        scale = side / max(height, width)
        return picture.resized(round(height * scale), round(width * scale)).padded_to_square()
