"""The embedded model's own test set: pictures that neither training nor profiling drew."""

from __future__ import annotations

from random import Random

from ..errors import InvalidInputError
from ..evaluation.datasets import Dataset, Record
from .pictures import Picture, compose

HELD_OUT = 5_000
"""Seeds below this are for evaluation. The test suite takes those from here on, profiling from 10,000, the demo 20,000,
training from 1,000,000."""


def held_out(count: int, first: int = 0) -> Dataset:
    """One question about each of the pictures of the seeds ``first`` to ``first + count - 1``, drawn when opened.

    Which entry is asked about is drawn from the picture's seed. ``id`` is the seed, ``kind`` the kind of document.

    Raises InvalidInputError when these are not among the held-out seeds.
    """
    if not 0 <= first < first + count <= HELD_OUT:
        raise InvalidInputError(
            f"seeds {first} to {first + count - 1}: the embedded model has {HELD_OUT} held-out pictures, from 0 on."
        )
    return Dataset(map(asked, range(first, first + count)), "held-out pictures of the embedded model")


def entry_of(seed: int, picture: Picture) -> int:
    """Which entry of the picture of a seed is asked about."""
    return Random(seed).choice(range(len(picture.questions)))


def asked(seed: int) -> Record:
    """The picture of a seed, closed, and one question about it."""
    picture = compose(seed)
    entry = entry_of(seed, picture)
    return Record(
        open=lambda: compose(seed).image,
        question=picture.questions[entry],
        answers=(picture.values[entry],),
        boxes=(picture.boxes[entry],),
        id=str(seed),
        kind=picture.kind,
        where=f"seed {seed}",
    )
