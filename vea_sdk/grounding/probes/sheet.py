"""What a probe is drawn on: it knows where the evidence is, and can leave it out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from PIL import Image, ImageDraw

from vea_sdk.adapters.geometry import Box
from vea_sdk.grounding.probes.lettering import Lettering

Colour = tuple[int, int, int]
Rectangle = tuple[int, int, int, int]

COLOURS: dict[str, Colour] = {
    "red": (205, 35, 40),
    "blue": (35, 80, 200),
    "green": (35, 145, 65),
    "yellow": (245, 210, 40),
    "orange": (240, 130, 30),
    "purple": (125, 50, 160),
    "black": (25, 25, 25),
    "white": (250, 250, 250),
}
"""Colours that a question can name."""


class Sheet:
    """A picture under way.

    ``words``: nouns to write; ``clutter``: 0 (little else to see) to 2 (much); ``unit``: the picture's shorter side in
    hundredths, for lengths that grow with it; ``blank``: leaves the evidence out and changes nothing else.
    """

    def __init__(
        self,
        size: tuple[int, int],
        colour: Colour,
        lettering: Lettering,
        words: Sequence[str],
        clutter: int,
        blank: bool,
    ) -> None:
        self.image = Image.new("RGB", size, colour)
        self.pen = ImageDraw.Draw(self.image)
        self.width, self.height = size
        self.unit = min(size) / 100
        self.lettering = lettering
        self.words = words
        self.clutter = clutter
        self._blank = blank
        self._evidence: list[Rectangle] = []

    @property
    def box(self) -> Box:
        """The smallest box around all evidence."""
        x0, y0, x1, y1 = zip(*self._evidence, strict=True)
        return float(min(x0)), float(min(y0)), float(max(x1)), float(max(y1))

    def stamp(self, ink: Image.Image, x: int, y: int, colour: Colour, evidence: bool = False) -> None:
        """Lay colour on the sheet where ``ink`` (mode L) is, its top left corner at (x, y)."""
        if evidence:
            covered = ink.getbbox()
            assert covered is not None  # evidence is never empty
            self._evidence.append((x + covered[0], y + covered[1], x + covered[2], y + covered[3]))
            if self._blank:
                return
        self.image.paste(colour, (x, y), ink)

    def write(
        self, text: str, x: float, y: float, size: float, colour: Colour, align: float = 0.0, evidence: bool = False
    ) -> None:
        """Write a line whose baseline is at y. ``align``: which part of its width lies left of x, 0.5 centres it."""
        height = round(size)
        ink, right, down = self.lettering.ink(text, height)
        left = round(x - align * self.lettering.width(text, height))
        self.stamp(ink, left + right, round(y) + down, colour, evidence)

    def bar(self, area: tuple[float, float, float, float], colour: Colour, evidence: bool = False) -> None:
        """Fill a rectangle (x0, y0, x1, y1)."""
        x0, y0, x1, y1 = map(round, area)
        self.stamp(Image.new("L", (x1 - x0, y1 - y0), 255), x0, y0, colour, evidence)

    def shape(
        self,
        draw: Callable[[ImageDraw.ImageDraw, int], None],
        x: float,
        y: float,
        side: float,
        colour: Colour,
        evidence: bool = False,
    ) -> None:
        """Stamp a shape that ``draw`` puts, white, on a square of ``side`` pixels centred at (x, y)."""
        ink = Image.new("L", (round(side), round(side)))
        draw(ImageDraw.Draw(ink), ink.width - 1)
        self.stamp(ink, round(x - side / 2), round(y - side / 2), colour, evidence)


def cells(area: tuple[float, float, float, float], rows: int, cols: int) -> list[tuple[float, float, float, float]]:
    """An area cut into rows × cols equal rectangles (x0, y0, x1, y1), row by row."""
    x0, y0, x1, y1 = area
    width, height = (x1 - x0) / cols, (y1 - y0) / rows
    return [
        (x0 + col * width, y0 + row * height, x0 + (col + 1) * width, y0 + (row + 1) * height)
        for row in range(rows)
        for col in range(cols)
    ]


def shade(rng: Random, low: int, high: int) -> Colour:
    """A random colour, each channel from ``low`` to ``high``."""
    return rng.randint(low, high), rng.randint(low, high), rng.randint(low, high)
