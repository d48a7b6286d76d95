"""A question about a picture together with where its answer stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

Box = tuple[float, float, float, float]
"""(x0, y0, x1, y1) in pixels, origin top left, x1 and y1 exclusive."""


@dataclass(frozen=True)
class Sample:
    """One question about one picture, its accepted answers, and the boxes that hold the evidence.

    ``boxes`` are (x0, y0, x1, y1) in pixels of the original picture.
    """

    image: Image.Image
    question: str
    answers: tuple[str, ...]
    boxes: tuple[Box, ...]
