"""What an evaluation found, and its tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


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
SPLIT = {
    "seen_right": "seen, right",
    "seen_wrong": "seen, not believed",
    "unseen_right": "not seen, right",
    "unseen_wrong": "not seen, wrong",
    "no_boxes": "no evidence to rank",
}


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else "<0.001"
