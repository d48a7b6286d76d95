"""Coloured shapes: what colour is the triangle?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from random import Random

from PIL import ImageDraw

from vea_sdk.grounding.probes.sheet import COLOURS, Sheet, cells, shade

Corners = Sequence[tuple[float, float]]


def _star() -> Corners:
    turns = [(math.pi * (corner / 5 - 0.5), 0.5 if corner % 2 == 0 else 0.2) for corner in range(10)]
    return [(0.5 + radius * math.cos(angle), 0.5 + radius * math.sin(angle)) for angle, radius in turns]


SHAPES: dict[str, Corners] = {
    "square": ((0.08, 0.08), (0.92, 0.08), (0.92, 0.92), (0.08, 0.92)),
    "triangle": ((0.5, 0.05), (0.98, 0.92), (0.02, 0.92)),
    "diamond": ((0.5, 0), (0.85, 0.5), (0.5, 1), (0.15, 0.5)),
    "arrow": ((0, 0.35), (0.55, 0.35), (0.55, 0.1), (1, 0.5), (0.55, 0.9), (0.55, 0.65), (0, 0.65)),
    "cross": tuple(
        (x, y)
        for x, y in (
            (0.35, 0), (0.65, 0), (0.65, 0.35), (1, 0.35), (1, 0.65), (0.65, 0.65),
            (0.65, 1), (0.35, 1), (0.35, 0.65), (0, 0.65), (0, 0.35), (0.35, 0.35),
        )
    ),
    "star": _star(),
    "circle": (),
}  # fmt: skip
"""Corners on the unit square; a circle has none."""


def draw(sheet: Sheet, rng: Random) -> tuple[str, str]:
    """One of each shape, in colours of their own; the evidence is one shape."""
    names = rng.sample(list(SHAPES), 3 + 2 * sheet.clutter)
    rows, cols = (2, 2) if sheet.clutter == 0 else (3, 3)
    places = rng.sample(cells((0, 0, sheet.width, sheet.height), rows, cols), len(names))
    for _ in range(60 * sheet.clutter):
        x, y, reach = rng.randrange(sheet.width), rng.randrange(sheet.height), 6 * sheet.unit
        sheet.pen.line((x, y, x + rng.uniform(-reach, reach), y + rng.uniform(-reach, reach)), fill=shade(rng, 90, 190))
    colours = rng.sample(list(COLOURS), len(names))
    for number, (name, colour, (x0, y0, x1, y1)) in enumerate(zip(names, colours, places, strict=True)):
        room = min(x1 - x0, y1 - y0)
        extent = room * rng.uniform(0.3, 0.75)
        slack_x, slack_y = (x1 - x0 - extent) / 2, (y1 - y0 - extent) / 2
        middle = (x0 + x1) / 2 + rng.uniform(-0.9, 0.9) * slack_x
        level = (y0 + y1) / 2 + rng.uniform(-0.9, 0.9) * slack_y
        sheet.shape(partial(_fill, corners=SHAPES[name]), middle, level, extent, COLOURS[colour], evidence=number == 0)
    return f"What colour is the {names[0]}?", colours[0]


def _fill(pen: ImageDraw.ImageDraw, side: int, corners: Corners) -> None:
    if corners:
        pen.polygon([(x * side, y * side) for x, y in corners], fill=255)
    else:
        pen.ellipse((0, 0, side, side), fill=255)
