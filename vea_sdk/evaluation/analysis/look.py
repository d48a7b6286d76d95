"""What one sample shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Look:
    """One sample's figures.

    ``baseline``: the answer to the plain question; ``right``: whether it is an exact match.
    ``highlighted`` and ``right_highlighted``: the same for the highlighted picture, None where it was not asked about.
    ``auroc``: of the evidence, the mean over the grounding layers, denoised; ``hit``: whether its highest patch is one
    with evidence; ``layer_auroc``: of each layer read. None without boxes, or where all patches are of one class.
    ``rapt``: section → RAPT of each layer read, see :class:`vea_sdk.evaluation.layers.LayerFigures`.
    """

    id: str
    kind: str
    question: str
    answers: tuple[str, ...]
    baseline: str
    right: bool
    highlighted: str | None
    right_highlighted: bool | None
    auroc: float | None
    hit: bool | None
    layer_auroc: tuple[float, ...] | None
    rapt: dict[str, tuple[float, ...]]

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Look:
        """From a row of :func:`vea_sdk.evaluate` with the method "base", and perhaps "vea"."""
        base, again, layers = row["methods"]["base"], row["methods"].get("vea"), row["layers"]
        return cls(
            id=row["id"],
            kind=row["kind"],
            question=row["question"],
            answers=tuple(row["answers"]),
            baseline=base["answer"],
            right=base["believed"],
            highlighted=again["answer"] if again else None,
            right_highlighted=again["believed"] if again else None,
            auroc=base["auroc"],
            hit=None if base["pointing"] is None else bool(base["pointing"]),
            layer_auroc=None if layers["auroc"] is None else tuple(layers["auroc"]),
            rapt={section: tuple(values) for section, values in layers["rapt"].items()},
        )
