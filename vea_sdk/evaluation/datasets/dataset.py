"""Samples whose pictures are opened one by one, when they are asked for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from random import Random
from typing import overload

from PIL import Image

from vea_sdk.errors import ImageError, InvalidInputError
from vea_sdk.evidence.images import load_image
from vea_sdk.grounding.samples import Box, BoxUnit, Sample, prepare

Change = Callable[[Image.Image, str], Image.Image]


@dataclass(frozen=True)
class Record:
    """A :class:`Sample` with its picture still closed: ``open`` gives it, ``where`` says in errors where it stands.

    ``unit``: what ``boxes`` count in; those of the sample count in pixels.
    """

    open: Callable[[], Image.Image]
    question: str
    answers: tuple[str, ...]
    boxes: tuple[Box, ...]
    id: str
    kind: str = ""
    where: str = ""
    unit: BoxUnit = "pixels"

    def sample(self) -> Sample:
        """Open the picture and hold the boxes against it.

        Raises InvalidInputError, naming the place, when there is no picture or a box lies outside of it.
        """
        try:
            image = self.open()
        except ImageError as error:
            raise ImageError(f"{self.where}: {error}") from error
        across, down = image.size if self.unit == "relative" else (1, 1)
        boxes = tuple((x0 * across, y0 * down, x1 * across, y1 * down) for x0, y0, x1, y1 in self.boxes)
        return prepare(Sample(image, self.question, self.answers, boxes, self.id, self.kind), self.where)


class Dataset(Sequence[Sample]):
    """A sequence of samples; every access opens the picture anew and nothing is kept.

    Args:
        records: the samples, closed.
        name: what it is, for results.

    Raises:
        InvalidInputError: there is no record, or two have the same id.
    """

    def __init__(self, records: Iterable[Record], name: str) -> None:
        self.records = tuple(records)
        self.name = name
        if not self.records:
            raise InvalidInputError(f"{name} is empty: it holds no sample.")
        seen: dict[str, Record] = {}
        for record in self.records:
            first = seen.setdefault(record.id, record)
            if first is not record:
                raise InvalidInputError(
                    f"{record.where}: the id {record.id!r} is already that of {first.where}. Give every sample its own."
                )

    @classmethod
    def of(cls, samples: Iterable[Sample], name: str) -> Dataset:
        """Samples that are open already; those without an id are known by their place."""
        return cls((_closed(number, sample) for number, sample in enumerate(samples)), name)

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[Sample]:
        return (record.sample() for record in self.records)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> Dataset: ...
    def __getitem__(self, index: int | slice) -> Sample | Dataset:
        if isinstance(index, slice):
            return Dataset(self.records[index], self.name)
        return self.records[index].sample()

    def __repr__(self) -> str:
        return f"<Dataset {self.name}: {len(self)} samples>"

    def shuffle(self, seed: int) -> Dataset:
        """The same samples in an order drawn from ``seed``."""
        return Dataset(Random(seed).sample(self.records, len(self.records)), f"{self.name}, shuffled with seed {seed}")

    def change(self, how: Change, name: str) -> Dataset:
        """Every picture passed through ``how(image, id)``, which must leave its size; ``name`` says so in results."""
        changed = (replace(record, open=partial(_changed, record, how)) for record in self.records)
        return Dataset(changed, f"{self.name}, {name}")


def _closed(number: int, sample: Sample) -> Record:
    name = sample.id or str(number)
    return Record(
        partial(load_image, sample.image, sys.maxsize),
        sample.question,
        sample.answers,
        sample.boxes,
        name,
        sample.kind,
        f"sample {name!r}",
    )


def _changed(record: Record, how: Change) -> Image.Image:
    image = record.open()
    found = how(image, record.id)
    if found.size != image.size:
        sizes = " to ".join(f"{width}x{height}" for width, height in (image.size, found.size))
        raise InvalidInputError(f"sample {record.id!r}: its picture was changed from {sizes}, its boxes were not.")
    return found
