"""What an evaluation found, and its tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from vea_sdk.evaluation.calibration import ReliabilityBin, RiskPoint


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
class CertaintySummary:
    """How well a method's certainty tells right answers from wrong ones, over the ``n`` answers that have one.

    ``auroc``: None where all are right, or all wrong. ``ece``, ``aurc``, ``reliability``, ``risk_coverage``: see
    :mod:`vea_sdk.evaluation.calibration`; of the last at most 50 points. ``risk_at``: the risk at each coverage of
    :data:`COVERAGES`, from all points.
    """

    n: int
    auroc: float | None
    ece: float
    aurc: float
    risk_at: Mapping[str, float]
    reliability: Sequence[ReliabilityBin]
    risk_coverage: Sequence[RiskPoint]


@dataclass(frozen=True)
class MethodSummary:
    """One method. ``metrics`` holds those that some sample has; ``split`` counts samples with evidence boxes;
    ``certainty`` is None where no answer has one."""

    name: str
    metrics: Mapping[str, Mean]
    split: Mapping[str, int]
    comparison: Comparison | None = None
    certainty: CertaintySummary | None = None


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
        tables = [self._metrics_table(), self._split_table()]
        if any(method.certainty for method in self.methods.values()):
            tables.append(self._certainty_table())
        return "\n\n".join(tables) + "\n"

    def _repr_markdown_(self) -> str:
        return self.table()

    def _metrics_table(self) -> str:
        shown = [name for name in _TITLES if any(name in method.metrics for method in self.methods.values())]
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

    def _certainty_table(self) -> str:
        titles = ["AUROC", "ECE", *(f"risk at {coverage}" for coverage in COVERAGES), "n"]
        lines = [f"| certainty | {' | '.join(titles)} |", "|---" * (len(titles) + 1) + "|"]
        for name, method in self.methods.items():
            if (found := method.certainty) is not None:
                figures = [found.auroc, found.ece, *(found.risk_at[coverage] for coverage in COVERAGES)]
                shown = ["–" if figure is None else f"{100 * figure:.1f}" for figure in figures]
                lines.append("| " + " | ".join([name, *shown, str(found.n)]) + " |")
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
    "point": "point in a box",
    "iou": "IoU",
}
COVERAGES = {"100%": 1.0, "80%": 0.8, "50%": 0.5}
"""Shares of the answers, the surest first, whose risk is shown."""

SPLIT = {
    "seen_right": "seen, right",
    "seen_wrong": "seen, not believed",
    "unseen_right": "not seen, right",
    "unseen_wrong": "not seen, wrong",
    "no_boxes": "no evidence to rank",
}


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else "<0.001"
