"""Figures over all samples: curves by layer, and what highlighting does where the model looked in the wrong place."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from vea_sdk.evaluation.analysis.look import Look
from vea_sdk.evaluation.analysis.run import Analysis
from vea_sdk.evaluation.layers import SECTIONS

CHANCE = 0.5
"""The AUROC of a map that knows nothing."""

SPLITS: dict[str, Callable[[Look], bool]] = {
    "all": lambda one: True,
    "right": lambda one: one.right,
    "wrong": lambda one: not one.right,
}


@dataclass(frozen=True)
class Point:
    """The mean of a figure over ``n`` samples at one layer; ``low`` and ``high`` are mean ± 1.96 standard errors.

    ``answers``: whose samples, "all", "right" or "wrong". The interval is None for a single sample.
    """

    figure: str
    answers: str
    layer: int
    n: int
    mean: float
    low: float | None
    high: float | None


def curves(analysis: Analysis) -> list[Point]:
    """RAPT of every section and AUROC, by layer and by whether the plain answer was right."""
    points = []
    for answers, belongs in SPLITS.items():
        chosen = [one for one in analysis.looks if belongs(one)]
        for section in SECTIONS:
            rows = [one.rapt[section] for one in chosen if section in one.rapt]
            points += _curve(f"rapt_{section}", answers, analysis.layers, rows)
        rows = [one.layer_auroc for one in chosen if one.layer_auroc is not None]
        points += _curve("auroc", answers, analysis.layers, rows)
    return points


def _curve(figure: str, answers: str, layers: Sequence[int], rows: Sequence[Sequence[float]]) -> list[Point]:
    if not rows:
        return []
    values = np.asarray(rows, dtype=np.float64)  # [samples, layers]
    n, means = len(values), values.mean(0)
    error = 1.96 * values.std(0, ddof=1) / math.sqrt(n) if n > 1 else None
    return [
        Point(figure, answers, layer, n, mean, *((None, None) if error is None else (mean - error[i], mean + error[i])))
        for i, (layer, mean) in enumerate(zip(layers, means.tolist(), strict=True))
    ]


@dataclass(frozen=True)
class Outcomes:
    """What highlighting did to the answers of some samples: ``mended`` were wrong before, ``spoiled`` right."""

    n: int
    right: int
    right_highlighted: int | None
    mended: int | None
    spoiled: int | None

    @classmethod
    def of(cls, looks: Sequence[Look]) -> Outcomes:
        right = sum(one.right for one in looks)
        if any(one.right_highlighted is None for one in looks):
            return cls(len(looks), right, None, None, None)
        mended = sum(bool(one.right_highlighted) and not one.right for one in looks)
        spoiled = sum(one.right and not one.right_highlighted for one in looks)
        return cls(len(looks), right, right + mended - spoiled, mended, spoiled)


def misplaced(analysis: Analysis) -> list[Look]:
    """The samples whose evidence points away from the truth, AUROC below 0.5, worst first."""
    found = [(one.auroc, place, one) for place, one in enumerate(analysis.looks) if one.auroc is not None]
    return [one for auroc, _, one in sorted(found, key=lambda row: row[:2]) if auroc < CHANCE]


def summary(analysis: Analysis) -> dict[str, Any]:
    """The figures that fit on a screen, ready for JSON."""
    looks = analysis.looks
    ranked = [one for one in looks if one.auroc is not None]
    below = misplaced(analysis)
    above = [one for one in ranked if one.auroc is not None and one.auroc >= CHANCE]
    best = [point for point in curves(analysis) if (point.figure, point.answers) == ("auroc", "all")]
    return {
        "samples": len(looks),
        "without_evidence": len(looks) - len(ranked),
        "layers": list(analysis.layers),
        "grounding": list(analysis.grounding),
        "auroc": float(np.mean([one.auroc for one in ranked])) if ranked else None,
        "auroc_by_layer": [point.mean for point in best],
        "below_half": len(below) / len(ranked) if ranked else None,
        "outcomes": {
            "all": asdict(Outcomes.of(looks)),
            "auroc_below_half": asdict(Outcomes.of(below)),
            "auroc_from_half": asdict(Outcomes.of(above)),
            "top_patch_on_evidence": asdict(Outcomes.of([one for one in ranked if one.hit])),
            "top_patch_elsewhere": asdict(Outcomes.of([one for one in ranked if not one.hit])),
        },
    }
