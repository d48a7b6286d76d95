"""An evaluation as pictures: how often each method is right, whether it had looked at the evidence, and was sure."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from vea_sdk.errors import VeaError
from vea_sdk.evaluation.result import SPLIT, Evaluation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = {
    "seen_right": "#2b7a5b",
    "seen_wrong": "#e0893a",
    "unseen_right": "#9fcdb9",
    "unseen_wrong": "#b0b0b0",
    "no_boxes": "#ececec",
}


def can_draw() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def draw(evaluation: Evaluation, path: str | Path) -> None:
    """Write a PNG: exact match with its 95 % interval per method, and the seen / believed split beside it.

    Raises VeaError when matplotlib is not installed.
    """
    names = list(evaluation.methods)
    figure = _figure(9, 1.6 + 0.4 * len(names))
    left, right = figure.subplots(1, 2, sharey=True)
    for place, name in enumerate(names):
        method = evaluation.methods[name]
        exact = method.metrics["em"]
        if exact.low is not None and exact.high is not None:
            left.plot([100 * exact.low, 100 * exact.high], [place, place], color="#555555", linewidth=1.5)
        left.plot(100 * exact.value, place, "o", color="#2b7a5b")
        start = 0
        for part, title in SPLIT.items():
            label = title if place == 0 else None
            right.barh(place, method.split[part], left=start, color=_COLOURS[part], label=label, height=0.6)
            start += method.split[part]
    left.set(yticks=range(len(names)), yticklabels=names, xlabel="exact match, %, with 95 % interval")
    left.grid(axis="x", alpha=0.3)
    left.invert_yaxis()
    right.set(xlabel="samples")
    figure.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=len(SPLIT), frameon=False)
    figure.savefig(path, dpi=120)


def draw_certainty(evaluation: Evaluation, path: str | Path) -> None:
    """Write a PNG of the methods whose answers have a certainty: share right against certainty, a dot's area standing
    for the answers in its bin, and risk against coverage beside it.

    Raises VeaError when matplotlib is not installed.
    """
    figure = _figure(9, 4.4)
    left, right = figure.subplots(1, 2)
    left.plot([0, 1], [0, 1], color="#555555", linewidth=0.8, linestyle="--")
    for name, method in evaluation.methods.items():
        if (found := method.certainty) is None:
            continue
        bins, points = found.reliability, found.risk_coverage
        (line,) = left.plot([one.certainty for one in bins], [one.right for one in bins], linewidth=1.5)
        areas = [12 + 300 * one.n / found.n for one in bins]
        left.scatter(*line.get_data(), s=areas, color=line.get_color(), alpha=0.7)
        # The risk of a coverage in between is that of the next point: answers that tie are kept together.
        coverage, risk = [0.0, *(one.coverage for one in points)], [points[0].risk, *(one.risk for one in points)]
        right.step(coverage, risk, where="pre", color=line.get_color(), label=name, linewidth=1.5)
    left.set(xlabel="mean certainty of the answers in a bin", ylabel="share of these that is right")
    left.set(xlim=(-0.04, 1.04), ylim=(-0.04, 1.04), title="reliability")
    right.set(xlabel="coverage: share kept, the surest first", ylabel="risk: share of these that is wrong")
    right.set(xlim=(-0.04, 1.04), ylim=(0, None), title="risk and coverage")
    for axis in (left, right):
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    figure.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(path, dpi=120)


def _figure(width: float, height: float) -> Figure:
    """A figure without a window and without pyplot's state."""
    if not can_draw():
        raise VeaError("A figure needs matplotlib: pip install 'vea-sdk[viz]'")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure
