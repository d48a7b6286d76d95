"""A heat map for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from vea_sdk.adapters.geometry import Box
from vea_sdk.errors import InvalidInputError
from vea_sdk.evidence.colours import heat
from vea_sdk.evidence.highlighting import check_size, checked_map
from vea_sdk.evidence.images import to_rgb
from vea_sdk.evidence.legend import with_legend

OPACITY = 0.5
"""Of the colours where the map is 1. Black text on white then keeps a contrast of 5 to 1 on its hottest ground."""


def overlay(
    image: Image.Image,
    pixel_map: NDArray[Any] | Tensor,
    boxes: Sequence[Box] = (),
    *,
    opacity: float = OPACITY,
    legend: bool = False,
) -> Image.Image:
    """pixel' = (1 − a) · pixel + a · colour(ẽ), a = opacity · ẽ: coloured where the model looked.

    What the model ignored keeps its pixels. Every colour is as far from black as from white, so the same heat changes a
    dark picture as much as a light one, and what it lies on stays readable.

    Args:
        image: a PIL picture.
        pixel_map: [H, W] in [0, 1] of the picture's size, numpy or torch.
        boxes: (x0, y0, x1, y1) in pixels, outlined on top.
        opacity: of the colours where the map is 1, in (0, 1].
        legend: whether to add a margin at the right with the colours and their numbers.

    Returns:
        A new RGB picture of the same size, wider with a legend.

    Raises:
        InvalidInputError: map and picture differ in size, the map leaves [0, 1], or the opacity does.
    """
    check_opacity(opacity)
    values = checked_map(pixel_map)
    check_size((image.height, image.width), tuple(values.shape))
    result = blended(to_rgb(image), values.cpu().numpy().astype(np.float32, copy=False), opacity)
    for box in boxes:
        _outline(result, box)
    drawn = Image.fromarray(result)
    return with_legend(drawn, opacity) if legend else drawn


def check_opacity(opacity: float) -> None:
    if isinstance(opacity, bool) or not isinstance(opacity, int | float) or not 0 < opacity <= 1:
        raise InvalidInputError(f"opacity={opacity!r} must lie in (0, 1]: how much of the colour covers the picture.")


def blended(picture: Image.Image, values: NDArray[np.float32], opacity: float) -> NDArray[np.uint8]:
    """[H, W, 3] of an RGB picture under the colours of a map."""
    colours = np.take(heat(), np.rint(255 * values).astype(np.uint8), axis=0)
    pixels = np.asarray(picture, dtype=np.float32)
    return np.asarray(np.rint(pixels + (opacity * values)[..., None] * (colours - pixels)).astype(np.uint8))


def _outline(pixels: NDArray[np.uint8], box: Box) -> None:
    """A white line with a dark rim, seen on any picture; a box too small for it gets a dark line only."""
    height, width = pixels.shape[:2]
    line = max(1, round(min(height, width) / 500))
    x0, x1 = (min(max(round(edge), 0), width) for edge in box[0::2])
    y0, y1 = (min(max(round(edge), 0), height) for edge in box[1::2])
    _frame(pixels[y0:y1, x0:x1], min(3 * line, max(1, min(y1 - y0, x1 - x0) // 2)), 0)
    if min(y1 - y0, x1 - x0) >= 6 * line:
        _frame(pixels[y0 + line : y1 - line, x0 + line : x1 - line], line, 255)


def _frame(pixels: NDArray[np.uint8], line: int, value: int) -> None:
    pixels[:line] = pixels[-line:] = value
    pixels[:, :line] = pixels[:, -line:] = value
