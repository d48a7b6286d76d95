"""Document lines: among lines of text, some name a thing and its number."""

from __future__ import annotations

from random import Random

from vea_sdk.grounding.probes.sheet import Sheet, shade


def draw(sheet: Sheet, rng: Random) -> tuple[str, str]:
    """A page of lines; the evidence is the number after one word."""
    ink = shade(rng, 0, 60)
    margin = 6 * sheet.unit
    sheet.pen.rectangle(
        (margin / 2, margin / 2, sheet.width - margin / 2, sheet.height - margin / 2), fill=(252, 252, 250)
    )
    lines = (6, 9, 13)[sheet.clutter]
    pitch = (sheet.height - 2 * margin) / lines
    size = round(min(pitch * 0.6, 5.5 * sheet.unit))
    keyed = rng.sample(sheet.words, 3 + sheet.clutter)
    others = [word for word in sheet.words if word not in keyed]
    at = dict(zip(rng.sample(range(lines), len(keyed)), keyed, strict=True))
    numbers = rng.sample(range(10_000, 100_000), len(keyed))
    for line in range(lines):
        y = margin + (line + 0.75) * pitch
        if line in at:
            place = keyed.index(at[line])
            label = f"{at[line]}: "
            sheet.write(label.rstrip(), margin, y, size, ink)
            x = margin + sheet.lettering.width(label, size)
            sheet.write(str(numbers[place]), x, y, size, ink, evidence=place == 0)
        else:
            sheet.write(_filling(sheet, rng, others, size, sheet.width - 2 * margin), margin, y, size, ink)
    return f'Which number is written after "{keyed[0]}"?', str(numbers[0])


def _filling(sheet: Sheet, rng: Random, words: list[str], size: int, width: float) -> str:
    """Words until the line is full."""
    text = rng.choice(words)
    while True:
        longer = f"{text} {rng.choice(words)}"
        if sheet.lettering.width(longer, size) > width:
            return text
        text = longer
