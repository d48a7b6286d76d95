"""Rows of samples → one line per method: means with intervals, the difference to Base, what was seen and believed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vea_sdk.evaluation.calibration import (
    aurc,
    certainty_auroc,
    expected_calibration_error,
    reliability,
    risk_at,
    risk_coverage,
    thinned,
)
from vea_sdk.evaluation.result import COVERAGES, SPLIT, CertaintySummary, Comparison, Mean, MethodSummary
from vea_sdk.evaluation.scoring import ANSWER_METRICS, EVIDENCE_METRICS
from vea_sdk.evaluation.statistics import intervals, mcnemar, paired_bootstrap

_METRICS = (*ANSWER_METRICS, *EVIDENCE_METRICS)
_DIFFERENCE = "f1 difference"
_Column = tuple[str, str]


def summarise(
    rows: Sequence[Mapping[str, Any]], names: Sequence[str], resamples: int = 10_000, seed: int = 0
) -> dict[str, MethodSummary]:
    """Summarise the methods ``names``; each is compared with the first of them."""
    first = names[0]
    scores = {name: [row["methods"][name] for row in rows] for name in names}
    columns = {
        (name, metric): [float(one[metric]) for one in scores[name] if one.get(metric) is not None]
        for name in names
        for metric in _METRICS
    }
    for name in names[1:]:
        columns[name, _DIFFERENCE] = [b - a for a, b in zip(columns[first, "f1"], columns[name, "f1"], strict=True)]
    means = _means(columns, resamples, seed)
    found: dict[str, MethodSummary] = {}
    for name in names:
        comparison = None
        if name != first:
            gained, lost, em_p = mcnemar(*([one["em"] == 1 for one in scores[asked]] for asked in (first, name)))
            f1_p = paired_bootstrap(columns[first, "f1"], columns[name, "f1"], resamples, seed)
            comparison = Comparison(first, gained, lost, em_p, means[name, _DIFFERENCE], f1_p)
        of_method = {metric: means[name, metric] for metric in _METRICS if (name, metric) in means}
        found[name] = MethodSummary(name, of_method, _split(scores[name]), comparison, _certainty(scores[name]))
    return found


def certainties(scores: Sequence[Mapping[str, Any]]) -> tuple[list[float], list[bool]]:
    """Of the answers that have a certainty, how sure each was and whether it was right.

    Rows of results that an earlier version wrote have none.
    """
    known = [one for one in scores if one.get("certainty") is not None]
    return [one["certainty"] for one in known], [one["em"] == 1 for one in known]


def _certainty(scores: Sequence[Mapping[str, Any]]) -> CertaintySummary | None:
    sure, right = certainties(scores)
    if not sure:
        return None
    points = risk_coverage(sure, right)
    return CertaintySummary(
        n=len(sure),
        auroc=certainty_auroc(sure, right),
        ece=expected_calibration_error(sure, right),
        aurc=aurc(points),
        risk_at={name: risk_at(points, coverage) for name, coverage in COVERAGES.items()},
        reliability=reliability(sure, right),
        risk_coverage=thinned(points),
    )


def _means(columns: Mapping[_Column, Sequence[float]], resamples: int, seed: int) -> dict[_Column, Mean]:
    """The mean of every column that is not empty; those of equal length are resampled together."""
    by_length: dict[int, list[_Column]] = defaultdict(list)
    for key, values in columns.items():
        by_length[len(values)].append(key)
    found: dict[_Column, Mean] = {}
    for n, keys in by_length.items():
        if n:
            matrix = np.array([columns[key] for key in keys]).T
            ends = intervals(matrix, resamples=resamples, seed=seed)
            spread = [(None, None)] * len(keys) if ends is None else ends.T.tolist()
            for key, mean, (low, high) in zip(keys, matrix.mean(0).tolist(), spread, strict=True):
                found[key] = Mean(mean, low, high, n)
    return found


def _split(scores: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    counts = dict.fromkeys(SPLIT, 0)
    for score in scores:
        if score["seen"] is None:
            counts["no_boxes"] += 1
        else:
            counts[f"{'seen' if score['seen'] else 'unseen'}_{'right' if score['believed'] else 'wrong'}"] += 1
    return counts
