"""Counting cards: how many dots are on one of the named cards?"""

from __future__ import annotations

from random import Random

from PIL import ImageDraw

from vea_sdk.grounding.probes.sheet import COLOURS, Sheet, cells, shade

NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def draw(sheet: Sheet, rng: Random) -> tuple[str, str, str]:
    """Cards, each under a word; the evidence is the dots on one card."""
    rows, cols = ((1, 2), (2, 2), (2, 3))[sheet.clutter]
    names = rng.sample(sheet.words, rows * cols)
    asked = rng.randrange(len(names))
    ink = shade(rng, 0, 60)
    for number, (name, (x0, y0, x1, y1)) in enumerate(
        zip(names, cells((0, 0, sheet.width, sheet.height), rows, cols), strict=True)
    ):
        gap = 2.5 * sheet.unit
        sheet.pen.rectangle((x0 + gap, y0 + gap, x1 - gap, y1 - gap), fill=shade(rng, 232, 252), outline=ink)
        size = sheet.lettering.fitting(name, 0.8 * (x1 - x0), round(6 * sheet.unit))
        sheet.write(name, (x0 + x1) / 2, y0 + gap + 8 * sheet.unit, size, ink, align=0.5)
        dots = rng.randint(1, len(NUMBERS))
        if number == asked:
            count = dots
        colour = COLOURS[rng.choice(("red", "blue", "green", "purple", "black"))]
        spots = cells((x0 + 2 * gap, y0 + gap + 11 * sheet.unit, x1 - 2 * gap, y1 - 2 * gap), 3, 3)
        for left, top, right, bottom in rng.sample(spots, dots):
            side = 0.7 * min(right - left, bottom - top)
            sheet.shape(_dot, (left + right) / 2, (top + bottom) / 2, side, colour, evidence=number == asked)
    return f'How many dots are on the card "{names[asked]}"?', str(count), NUMBERS[count - 1]


def _dot(pen: ImageDraw.ImageDraw, side: int) -> None:
    pen.ellipse((0, 0, side, side), fill=255)
