"""A question about a picture together with where its answer stands."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from PIL import Image

from vea_sdk.adapters.geometry import Box
from vea_sdk.errors import ImageError, InvalidInputError
from vea_sdk.evidence.images import load_image

__all__ = ["Box", "BoxUnit", "Sample", "check_boxes", "check_unit", "edges_of", "prepare"]

BoxUnit = Literal["pixels", "relative"]
"""What boxes of a data set count in: pixels of the picture, or shares of its width and height, from 0 to 1."""

_ROUNDING = 0.005  # of shares that are written with two decimals


@dataclass(frozen=True)
class Sample:
    """One question about one picture, its accepted answers, and the boxes that hold the evidence.

    ``boxes`` are (x0, y0, x1, y1) in pixels of the original picture, upright. ``id`` names the sample in results and
    ``kind`` what it is taken from (scene text, chart, ...); both may be empty.
    """

    image: Image.Image
    question: str
    answers: tuple[str, ...]
    boxes: tuple[Box, ...]
    id: str = ""
    kind: str = ""


def prepare(sample: Sample, where: str, max_pixels: int = sys.maxsize) -> Sample:
    """The sample as a model is shown it: its picture RGB and upright, and its boxes held against that.

    Whatever uses a sample's picture takes it from here (that is, through :func:`vea_sdk.evidence.load_image`), so that
    boxes, figures, digests and files are about the same pixels.

    Raises:
        InvalidInputError: the picture cannot be used (ImageError), or a box does not fit it; ``where`` is named.
    """
    try:
        image = load_image(sample.image, max_pixels)
    except ImageError as error:
        raise ImageError(f"{where}: {error}") from error
    return replace(sample, image=image, boxes=check_boxes(sample.boxes, image.size, where))


def check_boxes(boxes: Sequence[Sequence[float]], size: tuple[int, int], where: str) -> tuple[Box, ...]:
    """Boxes known to lie in a picture of ``size`` (width, height).

    What reaches over an edge by no more than one pixel is rounding, and cut off.

    Raises:
        InvalidInputError: a box is no four numbers, inverted or empty, outside, or within the first pixel, as shares
            of width and height are; ``where`` names its sample.
    """
    width, height = size
    found = []
    for box in boxes:
        try:
            x0, y0, x1, y1 = edges_of(box)
        except (TypeError, ValueError, OverflowError) as error:
            raise InvalidInputError(f"{where}: {box!r} is no box; give (x0, y0, x1, y1) in pixels.") from error
        if not all(map(math.isfinite, (x0, y0, x1, y1))):
            raise InvalidInputError(f"{where}: {list(box)} is no box; give (x0, y0, x1, y1) in pixels.")
        if not (x0 < x1 and y0 < y1):
            raise InvalidInputError(
                f"{where}: the box {list(box)} is inverted or empty; give (x0, y0, x1, y1) with x0 < x1 and y0 < y1."
            )
        check_unit((x0, y0, x1, y1), "pixels", where)
        if min(x0, y0) < -1 or x1 > width + 1 or y1 > height + 1:
            raise InvalidInputError(
                f"{where}: the box {list(box)} leaves its picture of {width}x{height} pixels (width x height); "
                "boxes count in pixels of the original picture."
            )
        found.append((max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height))))
    return tuple(found)


def edges_of(box: Any) -> Box:
    """Four numbers; truth values and texts, which Python also converts, are none.

    Raises TypeError, ValueError or OverflowError.
    """
    x0, y0, x1, y1 = box
    if any(isinstance(edge, bool | np.bool_ | str | bytes) for edge in (x0, y0, x1, y1)):
        raise TypeError("not a number")
    return float(x0), float(y0), float(x1), float(y1)


def check_unit(box: Box, unit: BoxUnit, where: str) -> Box:
    """A box that can count in its unit, which shows before its picture is opened; shares are cut to 0 to 1.

    Raises:
        InvalidInputError: a box in pixels lies within the first one, where no evidence is, or a share is not 0 to 1.
    """
    within = all(-_ROUNDING <= edge <= 1 + _ROUNDING for edge in box)
    if unit == "pixels" and within:
        raise InvalidInputError(
            f"{where}: the box {list(box)} lies in the first pixel of its picture, as shares of width and height do; "
            'boxes count in pixels. Read the data set with boxes="relative" (--boxes relative), or multiply x by the '
            "width and y by the height."
        )
    if unit == "relative" and not within:
        raise InvalidInputError(
            f'{where}: the box {list(box)} is not within 0 to 1, as boxes="relative" has it. For boxes in pixels, read '
            'the data set with boxes="pixels".'
        )
    x0, y0, x1, y1 = box if unit == "pixels" else (min(max(edge, 0.0), 1.0) for edge in box)
    return x0, y0, x1, y1
