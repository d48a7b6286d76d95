"""Scene text: signs at a slant before a wall; which words stand on the red one?"""

from __future__ import annotations

from random import Random

from PIL import Image

from vea_sdk.grounding.probes.sheet import COLOURS, Colour, Sheet, cells, shade


def draw(sheet: Sheet, rng: Random) -> tuple[str, str]:
    """Signs, each of its own colour; the evidence is the writing on one."""
    _wall(sheet, rng)
    places = cells((0, 0, sheet.width, sheet.height), 3, 2)
    colours = rng.sample(list(COLOURS), 2 + 2 * sheet.clutter)
    for number, (colour, place) in enumerate(zip(colours, rng.sample(places, len(colours)), strict=True)):
        text = f"{rng.choice(sheet.words)} {rng.randint(10, 99)}"
        _sign(sheet, rng, text, COLOURS[colour], place, evidence=number == 0)
        if number == 0:
            answer = text
    return f"What is written on the {colours[0]} sign?", answer


def _wall(sheet: Sheet, rng: Random) -> None:
    """Windows and bricks."""
    for _ in range(30 * sheet.clutter):
        x, y = rng.randrange(sheet.width), rng.randrange(sheet.height)
        wide, high = rng.uniform(4, 16) * sheet.unit, rng.uniform(2, 10) * sheet.unit
        sheet.pen.rectangle((x, y, x + wide, y + high), fill=shade(rng, 90, 200))


def _sign(
    sheet: Sheet,
    rng: Random,
    text: str,
    colour: Colour,
    place: tuple[float, float, float, float],
    evidence: bool,
) -> None:
    """A board with a line of text, both turned by the same angle about the middle of its place."""
    x0, y0, x1, y1 = place
    wide, high = (x1 - x0) * 0.85, (y1 - y0) * rng.uniform(0.4, 0.55)
    size = sheet.lettering.fitting(text, wide * 0.85, round(high * 0.6))
    writing, _, _ = sheet.lettering.ink(text, size)
    angle = rng.uniform(-9, 9)
    light = sum(colour) > 400
    ink = shade(rng, 0, 45) if light else shade(rng, 225, 255)
    for mask, tint, shown in (
        (Image.new("L", (round(wide), round(high)), 255), colour, False),
        (writing, ink, evidence),
    ):
        turned = mask.rotate(angle, Image.Resampling.BICUBIC, expand=True)
        x, y = round((x0 + x1 - turned.width) / 2), round((y0 + y1 - turned.height) / 2)
        sheet.stamp(turned, x, y, tint, shown)
