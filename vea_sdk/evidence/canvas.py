"""The picture as the model saw it: cropped, padded, resized."""

from __future__ import annotations

import math

from PIL import Image

from vea_sdk.adapters.geometry import ImageLayout


def input_canvas(image: Image.Image, layout: ImageLayout) -> Image.Image:
    """The part ``layout.input_region`` of the original at ``layout.input_size``; padding is black.

    The resize is bicubic, as most image processors do it; values are not normalised.
    """
    x0, y0, x1, y1 = layout.input_region
    left, top = math.floor(x0), math.floor(y0)
    height, width = layout.input_size
    cut = image.crop((left, top, math.ceil(x1), math.ceil(y1)))
    return cut.resize((width, height), Image.Resampling.BICUBIC, box=(x0 - left, y0 - top, x1 - left, y1 - top))
