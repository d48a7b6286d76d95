"""An evaluation as a picture: how often each method is right, and whether it had looked at the evidence."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from vea_sdk.errors import VeaError
from vea_sdk.evaluation.result import SPLIT, Evaluation

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
    if not can_draw():
        raise VeaError("A figure needs matplotlib: pip install 'vea-sdk[viz]'")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = list(evaluation.methods)
    figure = Figure(figsize=(9, 1.6 + 0.4 * len(names)), layout="constrained")
    FigureCanvasAgg(figure)
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
