"""Windows: parts of a picture in its original pixels, in its own aspect ratio."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from vea_sdk.adapters.geometry import Box
from vea_sdk.errors import InvalidInputError
from vea_sdk.evidence import Evidence
from vea_sdk.views.view import View, Views

SIZES = (0.9, 0.8, 0.7, 0.6)
PLACES = (2, 3, 4, 5)

_DIRECTIONS = [(x, y) for y in (-1, 0, 1) for x in (-1, 0, 1) if x or y]


def windows(sizes: Sequence[float] = SIZES, places: Sequence[int] = PLACES) -> Views:
    """Windows of each of ``sizes``, on ``places``² evenly spaced places: 4 + 9 + 16 + 25 = 54 by default.

    A window of size s shows s·width × s·height pixels, so all of them have the picture's aspect ratio.

    Args:
        sizes: shares of the picture's sides, above 0 and at most 1.
        places: along a side, for each size; one place is the middle.

    Raises:
        InvalidInputError: a size or a number of places that cannot be, or as many of one as not of the other.
    """
    if not sizes or len(sizes) != len(places):
        raise InvalidInputError(f"{len(sizes)} sizes and {len(places)} places: give a number of places to each size.")
    for size in sizes:
        if isinstance(size, bool) or not 0 < size <= 1:
            raise InvalidInputError(f"size {size!r} of a window must be above 0 and at most 1, the whole picture.")
    for count in places:
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise InvalidInputError(f"{count!r} places along a side: give a whole number of at least 1.")

    def make(image: Image.Image, evidence: Evidence | None = None) -> list[View]:
        return [
            window(image, (x, y, x + size * image.width, y + size * image.height))
            for size, count in zip(sizes, places, strict=True)
            for y in _spread(image.height * (1 - size), count)
            for x in _spread(image.width * (1 - size), count)
        ]

    return make


def around(box: Box, step: float = 0.07) -> Views:
    """Ten windows around one: moved by ``step`` of its sides in eight directions, and ``step`` smaller and larger.

    Where one would leave the picture, it is moved back inside.

    Raises:
        InvalidInputError: ``step`` is not between 0 and 1.
    """
    if isinstance(step, bool) or not 0 < step < 1:
        raise InvalidInputError(f"step={step!r} must lie between 0 and 1: a share of the window's sides.")
    x0, y0, x1, y1 = box
    width, height = x1 - x0, y1 - y0

    def make(image: Image.Image, evidence: Evidence | None = None) -> list[View]:
        moved = [(x0 + step * i * width, y0 + step * j * height, 1.0) for i, j in _DIRECTIONS]
        sized = [(x0 - (s - 1) * width / 2, y0 - (s - 1) * height / 2, s) for s in (1 - step, 1 + step)]
        return [window(image, (x, y, x + s * width, y + s * height)) for x, y, s in moved + sized]

    return make


def centred(x: float, y: float, sizes: Sequence[float] = SIZES) -> Views:
    """Windows of each of ``sizes`` with their middle at a point of the picture, or as near as the edges let them."""

    def make(image: Image.Image, evidence: Evidence | None = None) -> list[View]:
        halves = [(size * image.width / 2, size * image.height / 2) for size in sizes]
        return [window(image, (x - w, y - h, x + w, y + h)) for w, h in halves]

    return make


def window(image: Image.Image, box: Box) -> View:
    """The window of a box, in whole pixels and inside the picture.

    Raises InvalidInputError where it holds less than two pixels a side.
    """
    width = min(round(box[2] - box[0]), image.width)
    height = min(round(box[3] - box[1]), image.height)
    if width < 2 or height < 2:
        raise InvalidInputError(
            f"a window of {width}x{height} pixels in a picture of {image.width}x{image.height} shows nothing. Use "
            "larger sizes."
        )
    x = min(max(0, round(box[0])), image.width - width)
    y = min(max(0, round(box[1])), image.height - height)
    inside = (x, y, x + width, y + height)
    shown: Box = (float(x), float(y), float(x + width), float(y + height))
    return View(f"window {x},{y} {width}x{height}", shown, lambda: image.crop(inside))


def _spread(room: float, count: int) -> list[float]:
    """``count`` evenly spaced places from 0 to ``room``; one is in the middle."""
    return [room / 2] if count == 1 else [room * place / (count - 1) for place in range(count)]
