"""Tables: one cell, named by its row and column."""

from __future__ import annotations

from random import Random

from vea_sdk.grounding.probes.sheet import Sheet, cells, shade


def draw(sheet: Sheet, rng: Random) -> tuple[str, str]:
    """A table with words at its head and side; the evidence is the number in one cell."""
    rows, cols = (3, 4, 6)[sheet.clutter] + 1, (2, 3, 4)[sheet.clutter] + 1
    names = rng.sample(sheet.words, rows + cols - 2)
    side, head = names[: rows - 1], names[rows - 1 :]
    numbers = rng.sample(range(100, 1000), (rows - 1) * (cols - 1))
    asked = rng.randrange(len(numbers))
    margin = 4 * sheet.unit
    area = (margin, margin, sheet.width - margin, margin + (sheet.height - 2 * margin) * rng.uniform(0.6, 1.0))
    ink, line, band = shade(rng, 0, 60), shade(rng, 110, 170), shade(rng, 205, 235)
    places = cells(area, rows, cols)
    wide, high = places[0][2] - places[0][0], places[0][3] - places[0][1]
    size = min(sheet.lettering.fitting(name, 0.85 * wide, round(min(0.55 * high, 5.5 * sheet.unit))) for name in names)
    texts = ["", *head]
    for row, name in enumerate(side):
        texts += [name, *map(str, numbers[row * (cols - 1) : (row + 1) * (cols - 1)])]
    for place, ((x0, y0, x1, y1), text) in enumerate(zip(places, texts, strict=True)):
        row, col = divmod(place, cols)
        sheet.pen.rectangle((x0, y0, x1, y1), fill=(253, 253, 253) if row and col else band, outline=line)
        if text:
            here = row > 0 and col > 0 and text == str(numbers[asked])
            sheet.write(text, (x0 + x1) / 2, (y0 + y1 + 0.7 * size) / 2, size, ink, align=0.5, evidence=here)
    row, col = divmod(asked, cols - 1)
    question = f'In the table, which number is in the row "{side[row]}" and the column "{head[col]}"?'
    return question, str(numbers[asked])
