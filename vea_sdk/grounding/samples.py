"""A question about a picture together with where its answer stands."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from vea_sdk.adapters.geometry import Box
from vea_sdk.errors import InvalidInputError

__all__ = ["Box", "Sample", "check_boxes"]


@dataclass(frozen=True)
class Sample:
    """One question about one picture, its accepted answers, and the boxes that hold the evidence.

    ``boxes`` are (x0, y0, x1, y1) in pixels of the original picture. ``id`` names the sample in results, ``kind`` what
    it is taken from (scene text, chart, ...); both may be empty.
    """

    image: Image.Image
    question: str
    answers: tuple[str, ...]
    boxes: tuple[Box, ...]
    id: str = ""
    kind: str = ""


def check_boxes(boxes: Sequence[Sequence[float]], size: tuple[int, int], where: str) -> tuple[Box, ...]:
    """Boxes known to lie in a picture of ``size`` (width, height).

    What reaches over an edge by no more than one pixel is rounding, and cut off.

    Raises:
        InvalidInputError: a box is no four numbers, inverted or empty, or outside; ``where`` names its sample.
    """
    width, height = size
    found = []
    for box in boxes:
        if len(box) != 4 or not all(math.isfinite(edge) for edge in box):
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
        found.append((max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height))))
    return tuple(found)
