"""The analysis as pictures. Needs matplotlib, which the extra ``[viz]`` brings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vea_sdk.evaluation.analysis.run import Analysis
from vea_sdk.evaluation.analysis.summaries import CHANCE, Point, curves
from vea_sdk.evaluation.analysis.tables import BINS, Bin, histogram
from vea_sdk.evidence import Evidence, layout_map, overlay
from vea_sdk.grounding import metrics
from vea_sdk.grounding.samples import Sample

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = {"rapt_image": "C0", "rapt_text": "C7", "rapt_evidence": "C2", "rapt_non_evidence": "C3", "auroc": "C0"}
_PANELS = (("rapt_image", "rapt_text"), ("rapt_evidence", "rapt_non_evidence"), ("auroc",))
_LINES = {"right": "-", "wrong": "--"}
_SIDE = 320  # pixels of a layer's picture: a row of them must fit into a document


def rapt_figure(points: Sequence[Point]) -> Figure:
    """RAPT by layer and section, and AUROC by layer: right answers as lines, wrong ones dashed, with intervals."""
    figure, axes = _subplots(1, len(_PANELS), 4.2, 3.6)
    for ax, panel in zip(axes[0], _PANELS, strict=True):
        for name in panel:
            for answers, line in _LINES.items():
                shown = [one for one in points if (one.figure, one.answers) == (name, answers)]
                if not shown:
                    continue
                x, label = [one.layer for one in shown], f"{_label(name)}, {answers} (n={shown[0].n})"
                ax.plot(x, [one.mean for one in shown], line, color=_COLOURS[name], marker=".", label=label)
                spread = [(one.layer, one.low, one.high) for one in shown if one.low is not None]
                if spread:
                    ax.fill_between(*zip(*spread, strict=True), color=_COLOURS[name], alpha=0.15, linewidth=0)
        ax.axhline(CHANCE if panel == ("auroc",) else 1.0, color="black", linewidth=0.6)
        ax.set(xlabel="layer", ylabel="AUROC" if panel == ("auroc",) else "RAPT")
        ax.xaxis.get_major_locator().set_params(integer=True)
        if ax.get_legend_handles_labels()[0]:
            ax.legend(fontsize=7)
    return figure


def histogram_figure(rows: Sequence[Bin]) -> Figure:
    """How many samples have evidence of which AUROC, those with right and wrong answers stacked."""
    figure, axes = _subplots(1, 1, 5.2, 3.6)
    ax, low, width = axes[0][0], BINS[:-1], float(BINS[1] - BINS[0])
    right, wrong = ([row[place] for row in rows] for place in (2, 3))
    ax.bar(low, right, width, align="edge", color="C2", label="answered right")
    ax.bar(low, wrong, width, align="edge", bottom=right, color="C3", label="answered wrong")
    ax.axvline(CHANCE, color="black", linewidth=0.8)
    total, below = sum(right) + sum(wrong), sum(row[2] + row[3] for row in rows if row[1] <= CHANCE + 1e-9)
    ax.set(xlabel="AUROC of the evidence", ylabel="samples", xlim=(0, 1))
    ax.set_title(f"{below} of {total} samples below {CHANCE}", fontsize=9)
    ax.legend(fontsize=8, loc="upper left")
    return figure


def layers_figure(sample: Sample, everywhere: Evidence, grounding: Sequence[int]) -> Figure:
    """ā(l) of every layer on one sample's patches, isolated spikes removed, each scaled to its own range."""
    boxes = sample.boxes
    labels = metrics.patch_labels(everywhere.layout, boxes)
    rankable = bool(labels.any()) and not bool(labels.all())
    across = min(8, math.ceil(math.sqrt(len(everywhere.layers))))
    figure, axes = _subplots(math.ceil(len(everywhere.layers) / across), across, 2.2, 2.4)
    for ax in axes.flat:
        ax.axis("off")
    for ax, layer, row in zip(axes.flat, everywhere.layers, everywhere.layer_scores, strict=False):
        heat = layout_map(row, everywhere.layout, lam=everywhere.lam, smooth=False)
        picture = overlay(everywhere.image, heat, boxes)
        picture.thumbnail((_SIDE, _SIDE))
        ax.imshow(np.asarray(picture))
        title = f"layer {layer}" + (f", AUROC {metrics.auroc(row, labels):.2f}" if rankable else "")
        weight = "bold" if layer in grounding else "normal"
        ax.set_title(title, fontsize=8, fontweight=weight)
    figure.suptitle(sample.question, fontsize=9)
    return figure


def figures(analysis: Analysis) -> dict[str, Figure]:
    """File name → figure."""
    found = {
        "rapt.png": rapt_figure(curves(analysis)),
        "auroc-histogram.png": histogram_figure(histogram(analysis.looks)),
    }
    if analysis.shown is not None:
        found["layers.png"] = layers_figure(*analysis.shown, analysis.grounding)
    return found


def _label(name: str) -> str:
    return name.removeprefix("rapt_").replace("_", "-").replace("auroc", "AUROC")


def _subplots(rows: int, cols: int, width: float, height: float) -> tuple[Figure, Any]:
    """A figure without a window and without pyplot's state, and its axes [rows, cols]."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((cols * width, rows * height), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, cols, squeeze=False)
