"""The looks of the pictures: where a receipt, a form and a card put their entries."""

from __future__ import annotations

from random import Random

from .fields import Field, word
from .page import SIDE, Colour, Page, any_colour, text_width

Entry = tuple[Field, str]

_LABEL_SIZES = (36, 39)
_VALUE_SIZES = (45, 48, 54)


def _shade(colour: Colour, by: int) -> Colour:
    red, green, blue = (min(255, max(0, channel + by)) for channel in colour)
    return red, green, blue


def _sheet(page: Page, rng: Random, colour: Colour, inset: tuple[int, int], radius: int) -> tuple[int, int, int, int]:
    """Lay paper or a card on the desk, with a shadow; returns its rectangle."""
    dx, dy = inset
    x0, y0 = dx + rng.randint(-8, 8), dy + rng.randint(-8, 8)
    rectangle = (x0, y0, x0 + SIDE - 2 * dx, y0 + SIDE - 2 * dy)
    shadow = (x0 + 9, y0 + 9, rectangle[2] + 9, rectangle[3] + 9)
    page.pen.rounded_rectangle(shadow, radius, fill=_shade(page.desk, -45))
    page.pen.rounded_rectangle(rectangle, radius, fill=colour)
    return rectangle


def _barcode(page: Page, rng: Random, x0: int, x1: int, y0: int, y1: int) -> None:
    x = x0
    while x < x1:
        width = rng.choice((3, 3, 6, 9))
        page.pen.rectangle((x, y0, min(x + width, x1), y1), fill=page.ink)
        x += width + rng.choice((4, 6, 9))


def receipt(page: Page, rng: Random, entries: list[Entry]) -> None:
    """A till slip: a shop's name, one line per entry, prices flush right, a barcode at the foot."""
    x0, y0, x1, y1 = _sheet(page, rng, (252, 251, 246), (rng.randint(50, 80), 20), 4)
    label_size, value_size = rng.choice(_LABEL_SIZES), rng.choice(_VALUE_SIZES)
    title, size = word(rng) + rng.choice((" CAFE", " SHOP", " BAR")), 45
    page.write(title, (x0 + x1 - text_width(title, size)) / 2, y0 + 18, size)
    page.pen.line((x0 + 30, y0 + 84, x1 - 30, y0 + 84), fill=page.ink, width=3)
    pitch = min(84, (y1 - y0 - 170) // len(entries))
    for i, (item, value) in enumerate(entries):
        y = y0 + 104 + i * pitch
        page.write(item.label, x0 + 34, y + value_size - label_size, label_size)
        page.write(value, x1 - 34 - text_width(value, value_size), y, value_size, entry=i)
    _barcode(page, rng, x0 + 60, x1 - 60, y1 - 56, y1 - 16)


def form(page: Page, rng: Random, entries: list[Entry]) -> None:
    """A letter-like page: a coloured heading, labels in one column and values in the next."""
    x0, y0, x1, y1 = _sheet(page, rng, (250, 250, 252), (30, 20), 4)
    band = any_colour(rng, 30, 110)
    page.pen.rectangle((x0, y0, x1, y0 + 86), fill=band)
    page.write(word(rng) + rng.choice((" LTD", " AND CO", " WORKS")), x0 + 34, y0 + 18, 48, ink=(255, 255, 255))
    label_size, value_size = rng.choice(_LABEL_SIZES), rng.choice(_VALUE_SIZES)
    tab = x0 + rng.randint(230, 290)
    pitch = (y1 - y0 - 120) // len(entries)
    for i, (item, value) in enumerate(entries):
        y = y0 + 112 + i * pitch
        page.write(item.label, x0 + 34, y + value_size - label_size, label_size)
        page.write(value, tab, y, value_size, entry=i)
        page.pen.line((x0 + 30, y + pitch - 10, x1 - 30, y + pitch - 10), fill=_shade(band, 120), width=2)


def card(page: Page, rng: Random, entries: list[Entry], title: str, *, photo: bool, chip: bool, barcode: bool) -> None:
    """A card: a title band, then labels over values in two columns, with a photo, a chip or a barcode."""
    tint = any_colour(rng, 205, 250)
    x0, y0, x1, y1 = _sheet(page, rng, tint, (22, rng.randint(24, 60)), 34)
    page.write(title, x0 + 36, y0 + 20, 48)
    page.pen.line((x0 + 34, y0 + 84, x1 - 34, y0 + 84), fill=_shade(tint, -90), width=4)
    columns = [x0 + 36, x0 + 36 + (x1 - x0) // 2]
    if photo:
        _portrait(page, rng, x1 - 196, y0 + 104)
    if chip:
        metal, edge = (214, 178, 92), (150, 120, 50)
        page.pen.rounded_rectangle((x1 - 150, y0 + 106, x1 - 50, y0 + 180), 12, fill=metal, outline=edge, width=3)
    foot = 70 if barcode else 10
    label_size, value_size = rng.choice(_LABEL_SIZES), rng.choice(_VALUE_SIZES)
    cells = _cells(entries, value_size, (x1 - x0) // 2 - 50, first_rows_single=2 if photo else 1 if chip else 0)
    rows = cells[-1][0] + 1
    pitch = min(132, (y1 - y0 - 98 - foot) // rows)
    value_size = min(value_size, pitch - label_size - 16)
    for i, ((item, value), (row, column)) in enumerate(zip(entries, cells, strict=True)):
        x, y = columns[column], y0 + 98 + row * pitch
        page.write(item.label, x, y, label_size, ink=_shade(page.ink, 60))
        page.write(value, x, y + label_size + 6, value_size, entry=i)
    if barcode:
        _barcode(page, rng, x0 + 60, x1 - 60, y1 - 62, y1 - 22)


def _cells(entries: list[Entry], size: int, width: int, first_rows_single: int) -> list[tuple[int, int]]:
    """Row and column of each entry: two columns, except beside a photo and for values too wide for half a card."""
    cells: list[tuple[int, int]] = []
    row = column = 0
    for _, value in entries:
        long = text_width(value, size) > width
        if column == 1 and long:
            row, column = row + 1, 0
        cells.append((row, column))
        if column == 1 or long or row < first_rows_single:
            row, column = row + 1, 0
        else:
            column = 1
    return cells


def _portrait(page: Page, rng: Random, x: int, y: int) -> None:
    skin = rng.choice(((236, 200, 170), (198, 150, 112), (130, 92, 66)))
    page.pen.rectangle((x, y, x + 160, y + 200), fill=any_colour(rng, 150, 210))
    page.pen.pieslice((x + 12, y + 120, x + 148, y + 280), 180, 360, fill=any_colour(rng, 30, 120))
    page.pen.ellipse((x + 44, y + 36, x + 116, y + 128), fill=skin)
