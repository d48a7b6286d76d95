"""The figures of docs/grounding.md that are made from committed results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vea_sdk.evaluation.analysis.figures import rapt_figure
from vea_sdk.evaluation.analysis.summaries import Point

_COLOURS = {"base": "C7", "inst": "C0", "vea": "C2"}


def draw(results: dict[str, Any], folder: Path) -> None:
    """Write every figure as PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    by_level(results["conditions"]).savefig(folder / "grounding-methods.png", dpi=110)
    reasons(results["why"]).savefig(folder / "grounding-why.png", dpi=110)
    points = [Point(**one) for one in results["conditions"]["clean"]["curves"]]
    rapt_figure(points).savefig(folder / "grounding-rapt-clean.png")


def by_level(conditions: dict[str, Any]) -> Figure:
    """Exact match of the three methods against the level of each degradation, with 95% intervals."""
    kinds = list(dict.fromkeys(name.partition(":")[0] for name in conditions if ":" in name))
    figure = Figure((4.0 * len(kinds), 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    for ax, kind in zip(figure.subplots(1, len(kinds), sharey=True), kinds, strict=True):
        untouched = 1.0 if kind == "resolution" else 0.0
        levels = {untouched: "clean"} | {float(n.partition(":")[2]): n for n in conditions if n.startswith(kind)}
        for method, colour in _COLOURS.items():
            rows = [(x, conditions[levels[x]]["methods"][method]["metrics"]["em"]) for x in sorted(levels)]
            x, values = [row[0] for row in rows], [100 * row[1]["value"] for row in rows]
            ax.plot(x, values, marker=".", color=colour, label=method)
            low, high = ([100 * row[1][end] for row in rows] for end in ("low", "high"))
            ax.fill_between(x, low, high, color=colour, alpha=0.12, linewidth=0)
        if kind == "resolution":
            ax.invert_xaxis()
        ax.set(xlabel={"resolution": "resolution kept", "mask": "share masked"}.get(kind, kind), ylim=(0, 100))
    figure.axes[0].set_ylabel("exact match, %")
    figure.axes[0].legend()
    return figure


def reasons(why: dict[str, Any]) -> Figure:
    """Exact match of every way of showing the picture, with 95% intervals."""
    figure = Figure((4.0 * len(why), 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    for ax, (condition, variants) in zip(figure.subplots(1, len(why), sharey=True), why.items(), strict=True):
        for place, one in enumerate(variants.values()):
            ax.plot([100 * one["low"], 100 * one["high"]], [place, place], color="0.4")
            ax.plot(100 * one["em"], place, "o", color="C0")
        ax.axvline(100 * variants["inst"]["em"], color="black", linewidth=0.6)
        ax.set(title=condition, xlabel="exact match, %", yticks=range(len(variants)), yticklabels=list(variants))
    figure.axes[0].invert_yaxis()
    return figure
