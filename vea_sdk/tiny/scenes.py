"""Scenes: a page somewhere in a larger picture, alone or among others."""

from __future__ import annotations

from random import Random

from PIL import Image

from ..errors import InvalidInputError
from ..grounding.samples import Sample
from .fields import ABSENT, Field
from .held_out_set import HELD_OUT, entry_of
from .page import SIDE
from .pictures import Picture, compose

_OTHERS = 3
_BEYOND = 300  # pixels by which another document may leave the picture


def scene(seed: int, scale: float = 0.8, clutter: bool = False, *, absent: bool = False) -> Sample:
    """The page of a seed at a uniformly drawn place of a canvas of round(672 / scale) pixels a side.

    The canvas has the colour of the page's pixel (1, 1). Question and answer are those of the held-out set.

    Args:
        seed: of the page.
        scale: how much of the canvas's side the page fills, above 0 and at most 1.
        clutter: whether three other pages, none of which has the entry that is asked about, are laid below the page,
            each at a place drawn uniformly from −300 to side − 372 pixels.
        absent: ask for an entry that the page does not have; its answer is ``ABSENT``, and there is no box.

    Raises:
        InvalidInputError: the scale is none.
    """
    if isinstance(scale, bool) or not 0 < scale <= 1:
        raise InvalidInputError(f"scale={scale!r} must be above 0 and at most 1: the share of the side that is page.")
    page = compose(seed)
    entry = entry_of(seed, page)
    rng = Random(f"vea-scene {seed} {scale} {clutter}")
    side = round(SIDE / scale)
    canvas = Image.new("RGB", (side, side), page.image.getpixel((1, 1)))
    if clutter:
        for other in _others(rng, page.absent_field if absent else page.fields[entry]):
            place = [round(rng.uniform(-_BEYOND, side - SIDE + _BEYOND)) for _ in range(2)]
            canvas.paste(other.image, (place[0], place[1]))
    left, top = (rng.randint(0, side - SIDE) for _ in range(2))
    canvas.paste(page.image, (left, top))
    if absent:
        return Sample(canvas, page.absent, (ABSENT,), (), id=str(seed), kind=page.kind)
    x0, y0, x1, y1 = page.boxes[entry]
    box = (x0 + left, y0 + top, x1 + left, y1 + top)
    return Sample(canvas, page.questions[entry], (page.values[entry],), (box,), id=str(seed), kind=page.kind)


def _others(rng: Random, asked: Field) -> list[Picture]:
    """Pages of other seeds without the entry that is asked about."""
    found: list[Picture] = []
    while len(found) < _OTHERS:
        picture = compose(rng.randrange(HELD_OUT))
        if all(field.phrase != asked.phrase for field in picture.fields):
            found.append(picture)
    return found
