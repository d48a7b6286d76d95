"""Rows of samples → one line per method: means with intervals, the difference to Base, what was seen and believed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from vea_sdk.evaluation.scoring import ANSWER_METRICS, EVIDENCE_METRICS
from vea_sdk.evaluation.statistics import intervals, mcnemar, paired_bootstrap

_METRICS = (*ANSWER_METRICS, *EVIDENCE_METRICS)
_DIFFERENCE = "f1 difference"
_Column = tuple[str, str]


@dataclass(frozen=True)
class Mean:
    """The mean over ``n`` samples and its 95 % bootstrap interval; no interval for a single sample."""

    value: float
    low: float | None
    high: float | None
    n: int

    def __str__(self) -> str:
        spread = "" if self.low is None or self.high is None else f" [{100 * self.low:.1f}, {100 * self.high:.1f}]"
        return f"{100 * self.value:.1f}{spread}"


@dataclass(frozen=True)
class Comparison:
    """A method against the first one, sample by sample.

    ``gained``, ``lost``: answers that became right and wrong, ``em_p``: McNemar's exact test of that; ``f1_p``: the
    paired bootstrap of the difference in F1.
    """

    against: str
    gained: int
    lost: int
    em_p: float
    f1_difference: Mean
    f1_p: float


@dataclass(frozen=True)
class MethodSummary:
    """One method. ``metrics`` holds those that some sample has; ``split`` counts samples with evidence boxes."""

    name: str
    metrics: Mapping[str, Mean]
    split: Mapping[str, int]
    comparison: Comparison | None = None


@dataclass(frozen=True)
class Evaluation:
    """The result of :func:`vea_sdk.evaluate`. ``rows``: one per sample, as in the file of results.

    ``run``: what was run, in full. ``seconds``: how long this call took, of which ``resumed`` samples took nothing.
    """

    methods: Mapping[str, MethodSummary]
    rows: Sequence[Mapping[str, Any]] = field(repr=False)
    run: Mapping[str, Any] = field(repr=False)
    seconds: float = 0.0
    resumed: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Everything but the rows, ready for JSON."""
        return {
            "samples": len(self.rows),
            "methods": {name: asdict(method) for name, method in self.methods.items()},
            "run": dict(self.run),
            "seconds": round(self.seconds, 2),
            "resumed": self.resumed,
        }

    def table(self) -> str:
        """The figures as Markdown tables, in per cent."""
        return f"{self._metrics_table()}\n\n{self._split_table()}\n"

    def _repr_markdown_(self) -> str:
        return self.table()

    def _metrics_table(self) -> str:
        shown = [name for name in _METRICS if any(name in method.metrics for method in self.methods.values())]
        titles = [_TITLES[name] for name in shown]
        lines = [f"| {len(self.rows)} samples | {' | '.join(titles)} | gained, lost | p (EM) | p (F1) |"]
        lines.append("|---" * (len(shown) + 4) + "|")
        for name, method in self.methods.items():
            versus = method.comparison
            figures = [str(method.metrics.get(metric, "–")) for metric in shown]
            change = [f"+{versus.gained} −{versus.lost}", _p(versus.em_p), _p(versus.f1_p)] if versus else ["", "", ""]
            lines.append("| " + " | ".join([name, *figures, *change]) + " |")
        return "\n".join(lines)

    def _split_table(self) -> str:
        lines = [f"| samples | {' | '.join(SPLIT.values())} |", "|---" * (len(SPLIT) + 1) + "|"]
        lines += [f"| {name} | {' | '.join(str(m.split[k]) for k in SPLIT)} |" for name, m in self.methods.items()]
        return "\n".join(lines)


_TITLES = {
    "em": "EM",
    "f1": "F1",
    "anls": "ANLS",
    "vqa_accuracy": "VQA accuracy",
    "auroc": "AUROC",
    "ndcg": "NDCG",
    "ap": "AP",
    "pointing": "pointing game",
}
SPLIT = {
    "seen_right": "seen, right",
    "seen_wrong": "seen, not believed",
    "unseen_right": "not seen, right",
    "unseen_wrong": "not seen, wrong",
    "no_boxes": "no evidence to rank",
}


def summarise(
    rows: Sequence[Mapping[str, Any]], names: Sequence[str], resamples: int = 10_000, seed: int = 0
) -> dict[str, MethodSummary]:
    """Summarise the methods ``names``; each is compared with the first of them."""
    first = names[0]
    scores = {name: [row["methods"][name] for row in rows] for name in names}
    columns = {
        (name, metric): [float(one[metric]) for one in scores[name] if one[metric] is not None]
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
        found[name] = MethodSummary(name, of_method, _split(scores[name]), comparison)
    return found


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


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else "<0.001"
