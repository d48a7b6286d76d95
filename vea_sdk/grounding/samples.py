"""A question about a picture together with where its answer stands."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from vea_sdk.adapters.geometry import Box

__all__ = ["Box", "Sample"]


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
