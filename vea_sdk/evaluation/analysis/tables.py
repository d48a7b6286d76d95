"""The analysis as CSV files, one row per sample, per point of a curve, per bin."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from typing import Any

import numpy as np

from vea_sdk.evaluation.analysis.look import Look
from vea_sdk.evaluation.analysis.run import Analysis
from vea_sdk.evaluation.analysis.summaries import Point, curves, misplaced

BINS = np.linspace(0, 1, 21)
Bin = tuple[float, float, int, int]
"""(low, high, right answers, wrong answers)."""

_SAMPLE = ("id", "kind", "question", "answers", "baseline", "right", "highlighted", "right_highlighted", "auroc", "hit")


def tables(analysis: Analysis) -> dict[str, str]:
    """File name → CSV text."""
    return {
        "curves.csv": _csv([field.name for field in fields(Point)], (asdict(one).values() for one in curves(analysis))),
        "samples.csv": _csv(_SAMPLE, map(_row, analysis.looks)),
        "misplaced.csv": _csv(_SAMPLE, map(_row, misplaced(analysis))),
        "auroc-histogram.csv": _csv(("low", "high", "right", "wrong"), histogram(analysis.looks)),
    }


def histogram(looks: Sequence[Look]) -> list[Bin]:
    """How many samples have evidence of which AUROC."""
    counts = [
        np.histogram([one.auroc for one in looks if one.right == right and one.auroc is not None], BINS)[0]
        for right in (True, False)
    ]
    return list(zip(BINS[:-1].tolist(), BINS[1:].tolist(), *(count.tolist() for count in counts), strict=True))


def _row(look: Look) -> Iterable[Any]:
    values = {name: getattr(look, name) for name in _SAMPLE}
    return (values | {"answers": " | ".join(look.answers)}).values()


def _csv(head: Sequence[str], rows: Iterable[Iterable[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(["" if v is None else f"{v:.6g}" if isinstance(v, float) else v for v in row] for row in rows)
    return text.getvalue()
