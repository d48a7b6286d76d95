"""Florence-2: an encoder-decoder; the mean of all image features comes first, then their raster."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from vea_sdk.adapters.canvas import raster
from vea_sdk.adapters.cross import EncoderDecoderAdapter
from vea_sdk.adapters.generic import squared
from vea_sdk.adapters.geometry import ImageLayout
from vea_sdk.adapters.prompting import Pictures, picture_before_text
from vea_sdk.errors import InvalidInputError

_AT_THE_END = {"padding_side": "right"}


class Florence2Adapter(EncoderDecoderAdapter):
    """The picture is squeezed into a square. The first token stands for all of it."""

    model_types = ("florence2",)

    def prepare(self, processor: Any, pictures: Pictures, texts: Sequence[str], padding: Mapping[str, Any]) -> Any:
        """The processor puts the picture before the text; a text such as "<OCR>" is one of its tasks."""
        # An encoder counts places from the first token, so short prompts are padded at their end.
        options = padding and {**padding, **_AT_THE_END}
        try:
            return picture_before_text(self.name, processor, pictures, texts, options)
        except ValueError as error:
            if "Task token" not in str(error):
                raise
            raise InvalidInputError(f'{self.name}: {error} Ask with prompt="raw", which adds nothing to it.') from error

    def lay_out(
        self, inputs: Mapping[str, Any], image_sizes: Sequence[tuple[int, int]], processor: Any
    ) -> list[ImageLayout]:
        side = math.isqrt(int(processor.num_image_tokens) - 1)
        layouts = []
        for size in image_sizes:
            canvas = squared(size, processor)
            grids = (canvas.grid(raster(side, side, first_token=1)), canvas.grid(raster(1, 1)))
            layouts.append(ImageLayout(size, canvas.size, canvas.region, 1 + side * side, grids))
        return layouts
