"""Gemma 4: the picture at its own aspect ratio, kernel × kernel patches pooled into one token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vea_sdk.adapters.base import Adapter
from vea_sdk.adapters.generic import whole_pictures
from vea_sdk.adapters.geometry import ImageLayout


class Gemma4Adapter(Adapter):
    """The processor names the place (x, y) of every patch, (−1, −1) for padding; the largest of them give the grid.
    The unified model merges the patches before it places them, so there each place is a token."""

    model_types = ("gemma4", "gemma4_unified")

    def lay_out(
        self, inputs: Mapping[str, Any], image_sizes: Sequence[tuple[int, int]], processor: Any
    ) -> list[ImageLayout]:
        places = inputs["image_position_ids"]  # [pictures, places, 2]
        self.check_pictures(len(image_sizes), len(places))
        cols, rows = (places.amax(dim=1) + 1).T.tolist()
        grids = list(zip(rows, cols, strict=True))
        pooled = whole_pictures(image_sizes, grids, self.config.vision_config.pooling_kernel_size)
        return pooled if self.fits(inputs["input_ids"], pooled) else whole_pictures(image_sizes, grids, 1)
