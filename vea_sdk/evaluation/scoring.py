"""One sample, one method: how good its answer is, how well its evidence points, and whether it saw and believed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, TypedDict, get_args

import numpy as np
from numpy.typing import NDArray

from vea_sdk.adapters.geometry import Box
from vea_sdk.errors import InvalidInputError
from vea_sdk.evidence import Evidence
from vea_sdk.grounding import metrics

Seen = Literal["auroc", "pointing"]
Places = tuple[float | None, float | None]

ANSWER_METRICS = ("em", "f1", "anls", "vqa_accuracy")
EVIDENCE_METRICS = ("auroc", "ndcg", "ap", "pointing", "point", "iou")
MIN_VQA_ANSWERS = 4
"""With fewer answers not even agreement of all gives a VQA accuracy of 1, so none is reported."""


class Scores(TypedDict):
    """What is kept of one answer. None: there are too few answers for it, no evidence to rank, or no logits."""

    answer: str
    certainty: float | None
    em: float
    f1: float
    anls: float
    vqa_accuracy: float | None
    auroc: float | None
    ndcg: float | None
    ap: float | None
    pointing: float | None
    point: float | None
    iou: float | None
    seen: bool | None
    believed: bool


def score(
    answer: str,
    accepted: Sequence[str],
    token_scores: NDArray[np.floating],
    labels: NDArray[np.bool_],
    seen_by: Seen = "auroc",
    threshold: float = 0.5,
    places: Places = (None, None),
    certainty: float | None = None,
) -> Scores:
    """Judge one answer and the evidence behind it.

    *Seen*: the AUROC of the token scores is at least ``threshold`` (0.5 is chance), or, with ``seen_by="pointing"``,
    the highest token is one of the evidence. *Believed*: the answer is an exact match.

    Args:
        answer: what the model said. accepted: the accepted answers.
        token_scores: [tokens]. labels: [tokens], which hold evidence; with one class only, there is nothing to rank.
        places: what :func:`places` gave.
        certainty: how sure the model was of its answer; NaN, from broken logits, counts as none.
    """
    ranked = 0 < labels.sum() < len(labels)
    auroc = metrics.auroc(token_scores, labels) if ranked else None
    pointing = float(labels[int(np.argmax(token_scores))]) if ranked else None
    exact = metrics.exact_match(answer, accepted)
    return Scores(
        answer=answer,
        certainty=None if certainty is None or math.isnan(certainty) else certainty,
        em=exact,
        f1=metrics.token_f1(answer, accepted),
        anls=metrics.anls(answer, accepted),
        vqa_accuracy=metrics.vqa_accuracy(answer, accepted) if len(accepted) >= MIN_VQA_ANSWERS else None,
        auroc=auroc,
        ndcg=metrics.ndcg(token_scores, labels) if ranked else None,
        ap=metrics.average_precision(token_scores, labels) if ranked else None,
        pointing=pointing,
        point=places[0],
        iou=places[1],
        seen=None if auroc is None else (auroc >= threshold if seen_by == "auroc" else bool(pointing)),
        believed=exact == 1,
    )


def places(evidence: Evidence, boxes: Sequence[Box]) -> Places:
    """Whether the point of a look lies in a box of the evidence, and the IoU of its first box with the best of them;
    None without boxes. A look without a place counts as a miss."""
    if not boxes:
        return None, None
    found = evidence.boxes()
    overlap = max(metrics.iou(found[0].box, box) for box in boxes) if found else 0.0
    return metrics.pointing_game(evidence.point(), boxes), overlap


def check_seen(seen_by: str, threshold: float) -> None:
    """Raise InvalidInputError for an unknown rule or a threshold that no AUROC can have."""
    if seen_by not in get_args(Seen):
        raise InvalidInputError(f'seen_by={seen_by!r} is unknown. Choose "auroc" or "pointing".')
    if not 0 <= threshold <= 1:
        raise InvalidInputError(f"seen_threshold={threshold} must lie in [0, 1]; 0.5 is chance.")
