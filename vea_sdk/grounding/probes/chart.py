"""Bar charts: a bar and the number above it."""

from __future__ import annotations

from random import Random

from vea_sdk.grounding.probes.sheet import COLOURS, Sheet, cells, shade


def draw(sheet: Sheet, rng: Random) -> tuple[str, str]:
    """A chart of named bars; the evidence is one bar with its number."""
    names = rng.sample(sheet.words, (3, 5, 7)[sheet.clutter])
    values = rng.sample(range(11, 100), len(names))
    asked = rng.randrange(len(names))
    ink = shade(rng, 0, 60)
    margin, foot = 5 * sheet.unit, 10 * sheet.unit
    sheet.pen.rectangle(
        (margin / 2, margin / 2, sheet.width - margin / 2, sheet.height - margin / 2), fill=(253, 253, 253)
    )
    area = (2 * margin, 3 * margin, sheet.width - 2 * margin, sheet.height - margin - foot)
    for level in range(4 * sheet.clutter + 1):
        y = area[3] - level * (area[3] - area[1]) / (4 * sheet.clutter + 1)
        sheet.pen.line((area[0], y, area[2], y), fill=ink if level == 0 else (215, 215, 215))
    one = COLOURS[rng.choice(("red", "blue", "green", "orange", "purple"))]
    places = cells(area, 1, len(names))
    wide = places[0][2] - places[0][0]
    size = min(sheet.lettering.fitting(name, 0.92 * wide, round(4.5 * sheet.unit)) for name in names)
    for number, ((x0, top, x1, bottom), name, value) in enumerate(zip(places, names, values, strict=True)):
        here, middle = number == asked, (x0 + x1) / 2
        y = bottom - (bottom - top) * value / 100
        sheet.bar((x0 + 0.2 * wide, y, x1 - 0.2 * wide, bottom), one, evidence=here)
        sheet.write(str(value), middle, y - 1.2 * sheet.unit, 4.5 * sheet.unit, ink, align=0.5, evidence=here)
        sheet.write(name, middle, bottom + 0.6 * foot, size, ink, align=0.5)
    return f'What is the value of "{names[asked]}" in the bar chart?', str(values[asked])
