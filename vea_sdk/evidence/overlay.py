"""A heat map for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from vea_sdk.adapters.geometry import Box
from vea_sdk.evidence.colours import inferno
from vea_sdk.evidence.highlight import check_size, checked_map
from vea_sdk.evidence.images import to_rgb

OPACITY = 0.8
"""Of the colours where the map is 1: the picture still shows through."""

_SHADOW = 0.4
"""The brightness that colours keep over black: ink stays dark in a hot region, and a dark picture still glows."""


def overlay(image: Image.Image, pixel_map: NDArray[Any] | Tensor, boxes: Sequence[Box] = ()) -> Image.Image:
    """pixel' = (1 − a) · pixel + a · colour(ẽ) · (0.4 + 0.6 · luminance), a = 0.8 · ẽ: hot where the model looked.

    The opacity a rises with the map, so what the model ignored keeps its pixels; the picture's luminance shades the
    colours, so what it looked at stays readable.

    Args:
        image: a PIL picture.
        pixel_map: [H, W] in [0, 1] of the picture's size, numpy or torch.
        boxes: (x0, y0, x1, y1) in pixels, outlined on top.

    Returns:
        A new RGB picture.

    Raises:
        InvalidInputError: map and picture differ in size, or the map leaves [0, 1].
    """
    heat = checked_map(pixel_map)
    check_size((image.height, image.width), tuple(heat.shape))
    values = heat.cpu().numpy().astype(np.float32, copy=False)
    picture = to_rgb(image)
    colours = np.take(inferno(), np.rint(255 * values).astype(np.uint8), axis=0)
    luminance = np.asarray(picture.convert("L"), dtype=np.float32) / 255
    colours *= (_SHADOW + (1 - _SHADOW) * luminance)[..., None]
    pixels = np.asarray(picture, dtype=np.float32)
    blended = pixels + (OPACITY * values)[..., None] * (colours - pixels)
    result = np.rint(blended).astype(np.uint8)
    for box in boxes:
        _outline(result, box)
    return Image.fromarray(result)


def _outline(pixels: NDArray[np.uint8], box: Box) -> None:
    """A white line with a dark rim, seen on any picture; a box too small for it gets a dark line only."""
    height, width = pixels.shape[:2]
    line = max(1, round(min(height, width) / 250))
    x0, x1 = (min(max(round(edge), 0), width) for edge in box[0::2])
    y0, y1 = (min(max(round(edge), 0), height) for edge in box[1::2])
    _frame(pixels[y0:y1, x0:x1], min(3 * line, max(1, min(y1 - y0, x1 - x0) // 2)), 0)
    if min(y1 - y0, x1 - x0) >= 6 * line:
        _frame(pixels[y0 + line : y1 - line, x0 + line : x1 - line], line, 255)


def _frame(pixels: NDArray[np.uint8], line: int, value: int) -> None:
    pixels[:line] = pixels[-line:] = value
    pixels[:, :line] = pixels[:, -line:] = value
