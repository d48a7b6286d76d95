"""Draw docs/figures/closer.png from the rows of closer.py: what looking closer gains for how many looks, and its harm.

python benchmarks/closer_figure.py
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import reports
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vea_sdk.benchmark import Row, load

FILE = Path(__file__).parents[1] / "docs" / "figures" / "closer.png"
SCENES = ("page at 80%", "among others", "page at 65%", "page fills the picture")
WAYS = {"base": "first answer", "random": "3 random windows", "peak": "3 on the peak", "closer": "closer"}
COLOURS = {"base": "#b0b0b0", "random": "#e0893a", "peak": "#e8c547", "closer": "#2b7a5b"}


def main() -> None:
    figure = drawn(load(reports.RESULTS / "closer.json"))
    FILE.parent.mkdir(exist_ok=True)
    figure.savefig(FILE, dpi=110)
    print(FILE)


def drawn(rows: Sequence[Row]) -> Figure:
    figure = Figure((10.0, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(2, 3), sharey=True)
    _by_looks(left, rows)
    _by_scene(right, rows)
    return figure


def value(rows: Sequence[Row], way: str, scene: str) -> float:
    """Per cent of right answers of a way; that of the first answer stands in the rows that are compared with it."""
    if way == "base":
        told = next(row.what for row in rows if row.shape.get("situation") == scene and "against base (" in row.what)
        return float(told.partition("(")[2].partition("%")[0])
    start = f"{way} against"
    return next(row.value for row in rows if row.shape.get("situation") == scene and row.what.startswith(start))


def _by_looks(ax: Axes, rows: Sequence[Row]) -> None:
    scene = SCENES[0]
    looks = sorted(int(row.what.split()[0]) for row in rows if row.what.split()[1:3] == ["looks", "against"])
    most = next(row.value for row in rows if row.what == "looks, mean")
    x = [0, *looks, most]
    y = [value(rows, "base", scene), *(value(rows, f"{n} looks", scene) for n in looks), value(rows, "closer", scene)]
    ax.plot(x, y, "o-", color=COLOURS["closer"], label="closer")
    for way in ("random", "peak"):
        ax.axhline(value(rows, way, scene), color=COLOURS[way], linestyle="--", label=WAYS[way])
    ax.set(xlabel="looks", ylabel="right answers, %", title="a page at 80% of its picture's side", ylim=(0, 100))
    ax.legend(frameon=False, loc="lower right")
    ax.grid(alpha=0.3)


def _by_scene(ax: Axes, rows: Sequence[Row]) -> None:
    width = 0.8 / len(WAYS)
    for number, (way, label) in enumerate(WAYS.items()):
        places = [scene + width * (number - (len(WAYS) - 1) / 2) for scene in range(len(SCENES))]
        bars = ax.bar(places, [value(rows, way, one) for one in SCENES], width, color=COLOURS[way], label=label)
        ax.bar_label(bars, fmt="%.0f", fontsize=8)
    ax.set_xticks(range(len(SCENES)), SCENES)
    ax.set_title("the same gate for all")
    ax.legend(frameon=False, loc="upper left", ncols=2)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)


if __name__ == "__main__":
    main()
