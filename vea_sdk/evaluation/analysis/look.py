"""What one sample shows: attention of each layer by section of the prompt, and how well it points at the evidence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vea_sdk.errors import InvalidInputError
from vea_sdk.evidence import Evidence
from vea_sdk.grounding import metrics
from vea_sdk.grounding.samples import Sample

SECTIONS = ("image", "text", "evidence", "non_evidence")


@dataclass(frozen=True)
class Look:
    """One sample's figures.

    ``baseline``: the answer to the plain question; ``right``: whether it is one of the accepted answers;
    ``highlighted`` and ``right_highlighted``: the same for the highlighted picture, None where it was not asked about.
    ``auroc``: of the evidence, the mean over the grounding layers; ``layer_auroc``: of each layer read. None without
    boxes, or where all patches are of one class.
    ``rapt``: section → RAPT of each layer read; sections that this sample does not have are absent. "text" is all of
    the prompt but its image tokens.
    """

    id: str
    kind: str
    question: str
    answers: tuple[str, ...]
    baseline: str
    right: bool
    highlighted: str | None
    right_highlighted: bool | None
    auroc: float | None
    layer_auroc: tuple[float, ...] | None
    rapt: dict[str, tuple[float, ...]]


def look_at(sample: Sample, name: str, everywhere: Evidence, evidence: Evidence, said: str, again: str | None) -> Look:
    """The figures of one sample.

    Args:
        sample: with its answers and boxes.
        name: what it is called, its own ``id`` or its place.
        everywhere: evidence of all layers.
        evidence: of the grounding layers.
        said: the answer to the plain question.
        again: the answer about the highlighted picture, if it was asked about.
    """
    if not sample.answers:
        raise InvalidInputError(f"sample {name} has no accepted answer, so none can be right. Give it one.")
    labels = metrics.patch_labels(everywhere.layout, sample.boxes)
    rankable = bool(labels.any()) and not bool(labels.all())
    return Look(
        id=name,
        kind=sample.kind,
        question=sample.question,
        answers=tuple(sample.answers),
        baseline=said,
        right=_right(said, sample),
        highlighted=again,
        right_highlighted=None if again is None else _right(again, sample),
        auroc=metrics.auroc(evidence.scores, labels) if rankable else None,
        layer_auroc=tuple(metrics.auroc(row, labels) for row in everywhere.layer_scores) if rankable else None,
        rapt=_rapt(everywhere, labels),
    )


def _right(text: str, sample: Sample) -> bool:
    return metrics.exact_match(text, sample.answers) == 1.0


def _rapt(evidence: Evidence, labels: np.ndarray) -> dict[str, tuple[float, ...]]:
    """RAPT by section. In cross-attention there is no prompt around the image, and no section has any."""
    stats = evidence.stats
    if "mean" not in stats:
        return {}
    patches = ~np.isnan(evidence.layout.token_boxes()[:, 0])  # separators stand for no pixel
    found = {"image": stats["rapt_image"], "text": stats.get("rapt_text")}
    if labels.any():
        for name, section in (("evidence", labels), ("non_evidence", patches & ~labels)):
            found[name] = metrics.rapt(evidence.layer_scores, section, stats["mean"]) if section.any() else None
    return {name: tuple(float(value) for value in row) for name, row in found.items() if row is not None}
