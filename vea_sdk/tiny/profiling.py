"""The embedded model's own pictures to profile it on."""

from __future__ import annotations

from ..errors import InvalidInputError
from ..evaluation.datasets import Dataset
from .held_out_set import asked

FIRST, STOP = 10_000, 20_000
"""Seeds set aside for profiling; see :mod:`vea_sdk.tiny.held_out_set` for the others."""

STEP = 1_000


def profiling_set(count: int, seed: int = 0) -> Dataset:
    """One question about each of ``count`` pictures. Up to 1,000 pictures, two seeds from 0 to 9 share none.

    Raises InvalidInputError when there are not as many.
    """
    first = FIRST + STEP * seed
    if count < 1 or not FIRST <= first < first + count <= STOP:
        raise InvalidInputError(
            f"{count} pictures of seed {seed}: the embedded model has {max(0, STOP - first)} set aside from that "
            "seed on. Give a seed from 0 to 9, and fewer pictures."
        )
    return Dataset(map(asked, range(first, first + count)), f"{count} of the embedded model's pictures from {first} on")
