"""A question about a picture together with where its answer stands."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from PIL import Image

from vea_sdk.adapters.geometry import Box
from vea_sdk.errors import ImageError, InvalidInputError
from vea_sdk.evidence.images import load_image

__all__ = ["Box", "BoxUnit", "Sample", "check_box_unit", "check_boxes", "in_pixels", "opened"]

BoxUnit = Literal["pixels", "relative"]
"""What the boxes of a data set count in: pixels of the upright picture, or shares of its width and height, 0 to 1."""


@dataclass(frozen=True)
class Sample:
    """One question about one picture, its accepted answers, and the boxes that hold the evidence.

    ``image`` is used as :func:`vea_sdk.evidence.load_image` gives it, upright and RGB. ``boxes`` are (x0, y0, x1, y1)
    in pixels of that. ``id`` names the sample in results, ``kind`` what it is taken from (scene text, chart, ...); both
    may be empty.
    """

    image: Image.Image
    question: str
    answers: tuple[str, ...]
    boxes: tuple[Box, ...]
    id: str = ""
    kind: str = ""


def opened(sample: Sample, where: str) -> Sample:
    """The sample as everything uses it: its picture upright and RGB, its boxes held against that.

    Raises InvalidInputError, which says ``where``, for a picture or a box that cannot be used.
    """
    try:
        image = load_image(sample.image)
    except ImageError as error:
        raise ImageError(f"{where}: {error}") from error
    return replace(sample, image=image, boxes=check_boxes(sample.boxes, image.size, where))


def check_box_unit(unit: str) -> None:
    """Raises InvalidInputError for what is no :data:`BoxUnit`."""
    if unit not in get_args(BoxUnit):
        raise InvalidInputError(f'boxes={unit!r} is unknown. Choose "pixels" or "relative" (0 to 1).')


def in_pixels(boxes: Sequence[Box], size: tuple[int, int], where: str) -> tuple[Box, ...]:
    """Relative boxes, shares of width and height, in pixels of a picture of ``size`` (width, height)."""
    width, height = size
    for box in boxes:
        if not all(0 <= edge <= 1 for edge in box):
            raise InvalidInputError(
                f'{where}: the box {list(box)} is not relative: with boxes="relative" all edges lie in 0 to 1.'
            )
    return tuple((x0 * width, y0 * height, x1 * width, y1 * height) for x0, y0, x1, y1 in boxes)


def check_boxes(boxes: Sequence[Sequence[float]], size: tuple[int, int], where: str) -> tuple[Box, ...]:
    """Boxes known to lie in a picture of ``size`` (width, height).

    What reaches over an edge by no more than one pixel is rounding, and cut off.

    Raises:
        InvalidInputError: a box is no four numbers, inverted or empty, outside, or within the first pixel, as relative
            ones are; ``where`` names its sample.
    """
    width, height = size
    found = []
    for box in boxes:
        if len(box) != 4 or any(isinstance(edge, bool) or not math.isfinite(edge) for edge in box):
            raise InvalidInputError(f"{where}: {list(box)} is no box; give (x0, y0, x1, y1) in pixels.")
        x0, y0, x1, y1 = (float(edge) for edge in box)
        if not (x0 < x1 and y0 < y1):
            raise InvalidInputError(
                f"{where}: the box {list(box)} is inverted or empty; give (x0, y0, x1, y1) with x0 < x1 and y0 < y1."
            )
        if min(x0, y0) < -1 or x1 > width + 1 or y1 > height + 1:
            raise InvalidInputError(
                f"{where}: the box {list(box)} leaves its picture of {width}x{height} pixels (width x height); "
                "boxes count in pixels of the original picture."
            )
        if max(x1, y1) <= 1 < min(size):
            raise InvalidInputError(
                f"{where}: the box {list(box)} lies within the first pixel of a picture of {width}x{height} (width x "
                "height). Boxes count in pixels; where they are shares of the sides, read the data with "
                'boxes="relative" (--boxes relative), or multiply them by width and height.'
            )
        found.append((max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height))))
    return tuple(found)
