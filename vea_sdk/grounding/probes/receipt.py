"""Receipts: goods with prices flush right, and their total."""

from __future__ import annotations

from random import Random

from vea_sdk.grounding.probes.sheet import Sheet, shade


def draw(sheet: Sheet, rng: Random) -> tuple[str, str]:
    """A slip of paper on a table; the evidence is one price."""
    ink = shade(rng, 0, 70)
    high = sheet.height * 0.92
    wide = min(sheet.width * 0.9, high * rng.uniform(0.6, 0.95))
    left = rng.uniform(0.03, 0.97) * (sheet.width - wide)
    top = (sheet.height - high) / 2
    _table_top(sheet, rng)
    sheet.pen.rectangle((left, top, left + wide, top + high), fill=(253, 252, 247))
    goods = rng.sample(sheet.words, 4 + 3 * sheet.clutter)
    cents = rng.sample(range(105, 3000), len(goods))
    pitch = high / (len(goods) + 3)
    size = min(pitch * 0.62, wide / 11)
    start, end, y = left + 0.07 * wide, left + 0.93 * wide, top + 1.2 * pitch
    asked = rng.randrange(len(goods))
    for number, (item, price) in enumerate(zip(goods, cents, strict=True)):
        sheet.write(item, start, y, size, ink)
        sheet.write(f"{price / 100:.2f}", end, y, size, ink, align=1.0, evidence=number == asked)
        y += pitch
    sheet.pen.line((start, y - 0.5 * pitch, end, y - 0.5 * pitch), fill=ink, width=max(1, round(0.3 * sheet.unit)))
    sheet.write("TOTAL", start, y + 0.5 * pitch, size, ink)
    sheet.write(f"{sum(cents) / 100:.2f}", end, y + 0.5 * pitch, size, ink, align=1.0)
    return f'How much is "{goods[asked]}" on the receipt?', f"{cents[asked] / 100:.2f}"


def _table_top(sheet: Sheet, rng: Random) -> None:
    for _ in range(8 * sheet.clutter):
        x, y, side = rng.randrange(sheet.width), rng.randrange(sheet.height), rng.uniform(3, 14) * sheet.unit
        sheet.pen.ellipse((x, y, x + side, y + side), fill=shade(rng, 80, 210))
