"""Any architecture whose image embeddings replace a placeholder: the grid is found in what the processor returns."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import nn

from vea_sdk.adapters.base import Adapter
from vea_sdk.adapters.canvas import Canvas, raster
from vea_sdk.adapters.geometry import ImageLayout
from vea_sdk.adapters.options import image_option, size_option
from vea_sdk.errors import GeometryError

Sizes = Sequence[tuple[int, int]]

# Names under which processors return the patches of each picture; rows and columns come last.
GRID_NAMES = ("image_grid_thw", "image_grid_hws", "image_grid_hw", "spatial_shapes")


class GenericAdapter(Adapter):
    """One raster of tokens per picture, in the order of its pixels.

    Three descriptions are tried, the most explicit first: a patch grid that the processor returns, the size of the
    resized picture that it returns, and a square of tokens. The first that accounts for exactly the image tokens of
    every prompt is taken. Tiles, thumbnails and separators need an adapter of their own.
    """

    @classmethod
    def matches(cls, model: nn.Module) -> bool:
        return getattr(getattr(model, "config", None), "image_token_id", None) is not None

    def lay_out(self, inputs: Mapping[str, Any], image_sizes: Sizes, processor: Any) -> list[ImageLayout]:
        tried = []
        for layouts in self._candidates(inputs, image_sizes, processor):
            if self.fits(inputs["input_ids"], layouts):
                return layouts
            tried.append("; ".join(map(str, layouts)))
        raise GeometryError(
            f"{self.name}: no regular grid accounts for its image tokens"
            + (f" (tried: {' | '.join(tried)})" if tried else "")
            + ". Subclass vea_sdk.adapters.Adapter and override lay_out()."
        )

    def _candidates(self, inputs: Mapping[str, Any], image_sizes: Sizes, processor: Any) -> Iterator[list[ImageLayout]]:
        for name in GRID_NAMES:
            if name in inputs:
                grids = [(int(row[-2]), int(row[-1])) for row in inputs[name]]
                self.check_pictures(len(image_sizes), len(grids))
                for merge in dict.fromkeys((self.merge_size(processor), 1)):
                    yield whole_pictures(image_sizes, grids, merge)
        patch = self.patch_size(processor)
        if "image_sizes" in inputs and patch is not None:
            resized = [(int(h), int(w)) for h, w in inputs["image_sizes"]]
            self.check_pictures(len(image_sizes), len(resized))
            for side in dict.fromkeys((patch * self.merge_size(processor), patch)):
                yield whole_pictures(image_sizes, resized, side)
        per_picture, rest = divmod(int(self._is_image(inputs["input_ids"]).sum()), len(image_sizes))
        side = math.isqrt(per_picture)
        if not rest and side * side == per_picture:
            yield [square(squared(size, processor), size, side) for size in image_sizes]

    def merge_size(self, processor: Any) -> int:
        """How many patches along each axis make one token."""
        vision = getattr(self.config, "vision_config", None)
        for source, name in (
            (processor.image_processor, "merge_size"),
            (vision, "spatial_merge_size"),
            (self.config, "spatial_merge_size"),
        ):
            value = getattr(source, name, None)
            if isinstance(value, int):
                return value
        ratio = getattr(self.config, "downsample_ratio", None)  # the same, as the share of a side that is left
        return round(1 / ratio) if isinstance(ratio, float) else 1

    def patch_size(self, processor: Any) -> int | None:
        """Side of one patch in pixels."""
        vision = getattr(self.config, "vision_config", None)
        for value in (getattr(vision, "patch_size", None), image_option(processor, "patch_size")):
            if isinstance(value, int):
                return value
        return None


def whole_pictures(image_sizes: Sizes, grids: Sizes, cell: int) -> list[ImageLayout]:
    """Each picture resized to its grid (rows, cols), of which cell × cell entries make one token."""
    layouts = []
    for original_size, (rows, cols) in zip(image_sizes, grids, strict=True):
        canvas = Canvas.of(original_size)
        tokens = canvas.grid(raster(rows // cell, cols // cell))
        layouts.append(ImageLayout(original_size, canvas.size, canvas.region, tokens.token_index.size, (tokens,)))
    return layouts


def square(canvas: Canvas, original_size: tuple[int, int], side: int) -> ImageLayout:
    return ImageLayout(original_size, canvas.size, canvas.region, side * side, (canvas.grid(raster(side, side)),))


def squared(original_size: tuple[int, int], processor: Any) -> Canvas:
    """What the image processor makes of a picture: padded to a square, resized, its middle cut out, as it says."""
    canvas = Canvas.of(original_size)
    if image_option(processor, "do_pad") is not False and hasattr(processor.image_processor, "pad_to_square"):
        canvas = canvas.padded_to_square()
    size = size_option(processor, "size")
    if image_option(processor, "do_resize") and ("shortest_edge" in size or "height" in size):
        canvas = canvas.resized_to(size)
    if image_option(processor, "do_center_crop"):
        crop = size_option(processor, "crop_size")
        canvas = canvas.center_cropped(crop["height"], crop["width"])
    return canvas
