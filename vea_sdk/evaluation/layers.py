"""One sample, layer by layer: where the attention goes, and how well it points at the evidence."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from vea_sdk.evidence import Evidence
from vea_sdk.grounding import metrics

SECTIONS = ("image", "text", "evidence", "non_evidence")


class LayerFigures(TypedDict):
    """Six digits of each. ``layers``: their numbers, all that were read.

    ``auroc``: of ā(l), None without boxes or where all patches are of one class. ``rapt``: by section of the prompt;
    those that this sample does not have are absent. "text" is all of the prompt but its image tokens.
    """

    layers: list[int]
    auroc: list[float] | None
    rapt: dict[str, list[float]]


def layer_figures(evidence: Evidence, labels: NDArray[np.bool_]) -> LayerFigures:
    """From the evidence of all layers and the labels of its patches."""
    rankable = bool(labels.any()) and not bool(labels.all())
    auroc = _digits(metrics.auroc(row, labels) for row in evidence.layer_scores) if rankable else None
    return LayerFigures(layers=list(evidence.layers), auroc=auroc, rapt=_rapt(evidence, labels))


def _rapt(evidence: Evidence, labels: NDArray[np.bool_]) -> dict[str, list[float]]:
    """RAPT by section. In cross-attention there is no prompt around the image, and no section has any."""
    stats = evidence.stats
    if "mean" not in stats:
        return {}
    patches = ~np.isnan(evidence.layout.token_boxes()[:, 0])  # separators stand for no pixel
    found = {f"{name}": stats[f"rapt_{name}"] for name in ("image", "text") if f"rapt_{name}" in stats}
    if labels.any():
        for name, section in (("evidence", labels), ("non_evidence", patches & ~labels)):
            if section.any():
                found[name] = metrics.rapt(evidence.layer_scores, section, stats["mean"])
    return {name: _digits(row) for name, row in found.items()}


def _digits(values: Iterable[float]) -> list[float]:
    return [float(f"{value:.6g}") for value in values]
