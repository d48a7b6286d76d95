"""What was measured on each sample, and on all."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vea_sdk.grounding.metrics import Rule
from vea_sdk.grounding.samples import Sample
from vea_sdk.grounding.sinks import LayerSinks

NO_BOXES, ONE_CLASS = "no boxes", "one class"
"""Why a sample cannot be ranked: nothing marks its evidence, or all of its patches hold evidence or none does."""

FIGURES = ("auroc", "average_precision", "ndcg")


@dataclass(frozen=True)
class Measured:
    """One sample: a figure per layer read, in their order, or in ``skipped`` the reason why there are none.

    ``sinks``: those of every layer by border rule, see :mod:`vea_sdk.grounding.sinks`; of skipped samples, too, if they
    were run. ``digest``: of picture, question and boxes.
    """

    id: str
    kind: str
    digest: str
    auroc: tuple[float, ...] = ()
    average_precision: tuple[float, ...] = ()
    ndcg: tuple[float, ...] = ()
    sinks: Mapping[str, tuple[LayerSinks, ...]] = field(default_factory=dict)
    skipped: str | None = None

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Measured:
        """The reverse of ``dataclasses.asdict``, also from JSON."""
        tuples = {name: tuple(fields[name]) for name in FIGURES}
        sinks = {border: tuple(map(LayerSinks.from_dict, found)) for border, found in fields["sinks"].items()}
        return cls(**{**fields, **tuples, "sinks": sinks})


@dataclass(frozen=True)
class Measurement:
    """All samples of one model. ``layers``: those read; ``n_layers``: the model's depth."""

    model: str
    n_layers: int
    layers: tuple[int, ...]
    rule: Rule
    samples: tuple[Measured, ...]

    @property
    def ranked(self) -> list[Measured]:
        """The samples that could be ranked."""
        return [one for one in self.samples if one.skipped is None]

    @property
    def skipped(self) -> dict[str, int]:
        """How many samples could not be ranked, by reason."""
        return dict(Counter(one.skipped for one in self.samples if one.skipped is not None))

    def figures(self, name: str = "auroc") -> NDArray[np.float64]:
        """[ranked samples, layers read] of ``"auroc"``, ``"average_precision"`` or ``"ndcg"``."""
        return np.array([getattr(one, name) for one in self.ranked], dtype=np.float64)


def digest(sample: Sample) -> str:
    """Of what a sample shows and asks: its picture, question and boxes."""
    said = json.dumps([sample.question, sample.boxes, sample.image.mode, sample.image.size])
    return hashlib.sha256(said.encode() + sample.image.tobytes()).hexdigest()[:16]
