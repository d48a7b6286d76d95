"""Little documents, receipts and cards, drawn from a seed, with a question about every entry on them."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from PIL import Image

from ..errors import InvalidInputError
from ..grounding.samples import Box, Sample
from . import layouts
from .fields import ABSENT, FIELDS, GOODS, KINDS, RECEIPT, Field, all_fields, word
from .page import Page, Run, any_colour


@dataclass(frozen=True)
class Picture:
    """A drawn picture, its text runs, and its entries: field, question, value and box of each."""

    image: Image.Image
    kind: str
    runs: tuple[Run, ...]
    fields: tuple[Field, ...]
    questions: tuple[str, ...]
    values: tuple[str, ...]
    boxes: tuple[Box, ...]
    absent_field: Field
    absent: str
    """A question about an entry that is not on the picture, ``absent_field``; its answer is ``ABSENT``."""


def compose(seed: int, kind: str | None = None, *, hide: int | None = None) -> Picture:
    """Draw the picture of a seed. ``hide`` leaves the value of that entry unwritten and changes nothing else."""
    if kind is not None and kind not in KINDS:
        raise InvalidInputError(f"kind {kind!r} is not a kind of picture; choose one of {', '.join(KINDS)}")
    rng = Random(f"vea-tiny {seed} {kind}")
    kind = kind or rng.choice(KINDS)
    fields = _choose(rng, kind)
    values = tuple(field.make(rng) for field in fields)
    questions = tuple(field.question(rng) for field in fields)
    missing = [field for field in all_fields() if field.phrase not in {f.phrase for f in fields}]
    absent_field = rng.choice(missing)
    absent = absent_field.question(rng)
    desk = any_colour(rng, 70, 190)
    ink = any_colour(rng, 10, 70)
    page = Page(desk, ink, hide)
    _lay_out(page, rng, kind, list(zip(fields, values, strict=True)))
    boxes = tuple(page.boxes[i] for i in range(len(fields)))
    return Picture(page.image, kind, tuple(page.runs), fields, questions, values, boxes, absent_field, absent)


def _choose(rng: Random, kind: str) -> tuple[Field, ...]:
    if kind == "receipt":
        return (*rng.sample(GOODS, rng.randint(2, 4)), *rng.sample(RECEIPT, rng.randint(1, 3)))
    most = {"invoice": 6, "boarding": 7}.get(kind, 5)
    fields = rng.sample(FIELDS[kind], rng.randint(4, min(most, len(FIELDS[kind]))))
    return tuple(fields)


def _lay_out(page: Page, rng: Random, kind: str, entries: list[layouts.Entry]) -> None:
    if kind == "receipt":
        layouts.receipt(page, rng, entries)
    elif kind == "invoice":
        layouts.form(page, rng, entries)
    else:
        suffix = {"identity": " CARD", "boarding": " AIR", "bank": " BANK", "business": " STUDIO"}[kind]
        layouts.card(
            page,
            rng,
            entries,
            word(rng) + suffix,
            photo=kind == "identity",
            chip=kind == "bank",
            barcode=kind == "boarding" and len(entries) < 7,
        )


def draw(seed: int, kind: str | None = None, *, absent: bool = False) -> list[Sample]:
    """One picture as samples, one per entry; ``absent`` adds a question that the picture cannot answer."""
    picture = compose(seed, kind)
    samples = [
        Sample(picture.image, question, (value,), (box,))
        for question, value, box in zip(picture.questions, picture.values, picture.boxes, strict=True)
    ]
    if absent:
        samples.append(Sample(picture.image, picture.absent, (ABSENT,), ()))
    return samples
