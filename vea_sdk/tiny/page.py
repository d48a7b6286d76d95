"""A sheet to draw on that remembers what was written where."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from random import Random

from PIL import Image, ImageDraw, ImageFont

from ..grounding.samples import Box

Colour = tuple[int, int, int]


def any_colour(rng: Random, low: int, high: int) -> Colour:
    """A random colour, each channel from ``low`` to ``high``."""
    return rng.randint(low, high), rng.randint(low, high), rng.randint(low, high)


SIDE = 672
"""Width and height of every picture in pixels: three times the model's input."""


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """Pillow's built-in scalable font, so that pictures need no font of the system."""
    return ImageFont.load_default(size)  # type: ignore[return-value]


def text_width(text: str, size: int) -> float:
    """Advance of a line of text in pixels."""
    return font(size).getlength(text)


@dataclass(frozen=True)
class Run:
    """One line of text: its string, top left corner, font size, and the entry whose value it is (None: no value)."""

    text: str
    x: int
    y: int
    size: int
    entry: int | None


@dataclass
class Page:
    """A picture under way: pixels, the text runs on them, and the box of every value."""

    desk: Colour
    ink: Colour
    hide: int | None = None
    runs: list[Run] = field(default_factory=list)
    boxes: dict[int, Box] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.image = Image.new("RGB", (SIDE, SIDE), self.desk)
        self.pen = ImageDraw.Draw(self.image)

    def write(
        self, text: str, x: float, y: float, size: int, *, entry: int | None = None, ink: Colour | None = None
    ) -> None:
        """Write a line with its top left corner at (x, y). ``hide`` names the entry whose value stays unwritten."""
        left, top = round(x), round(y)
        self.runs.append(Run(text, left, top, size, entry))
        if entry is not None:
            x0, y0, x1, y1 = self.pen.textbbox((left, top), text, font=font(size))
            self.boxes[entry] = (float(x0), float(y0), float(x1), float(y1))
        if entry is None or entry != self.hide:
            self.pen.text((left, top), text, fill=ink or self.ink, font=font(size))
