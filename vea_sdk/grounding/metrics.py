"""How well scores point at the evidence, and how well an answer matches.

Ranking measures follow scikit-learn's definitions (``roc_auc_score``, ``average_precision_score``, ``ndcg_score``),
with ties treated as there. Answer measures follow SQuAD's normalisation (arXiv 1606.05250).
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vea_sdk.adapters.geometry import Box, ImageLayout
from vea_sdk.errors import InvalidInputError
from vea_sdk.grounding.rapt import rapt as rapt

Rule = Literal["any", "half", "all"]


def auroc(scores: ArrayLike, labels: ArrayLike) -> float:
    """P(score of a positive > score of a negative) + ½ P(equal): the area under the ROC curve.

    Args:
        scores: [m] floats. labels: [m] booleans or 0/1.

    Raises:
        InvalidInputError: lengths differ, NaN, labels other than 0/1, or of one class only.
    """
    values, positive = _checked(scores, labels)
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks = (last - (counts - 1) / 2)[group]  # 1-based, ties share their mean
    n_positive = int(positive.sum())
    n_negative = len(values) - n_positive
    return float((ranks[positive].sum() - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))


def average_precision(scores: ArrayLike, labels: ArrayLike) -> float:
    """Σ_n (R_n − R_{n−1}) · P_n over the distinct scores, highest first. Arguments and errors: see :func:`auroc`."""
    values, positive = _checked(scores, labels)
    _, group, counts = np.unique(-values, return_inverse=True, return_counts=True)
    hits = np.bincount(group, weights=positive)
    precision = np.cumsum(hits) / np.cumsum(counts)
    return float((hits * precision).sum() / hits.sum())


def ndcg(scores: ArrayLike, labels: ArrayLike) -> float:
    """DCG / ideal DCG, DCG = Σ_r label(r) / log2(r + 1) over ranks r from 1; tied scores share their mean discount.

    Arguments and errors: see :func:`auroc`.
    """
    values, positive = _checked(scores, labels)
    discount = 1 / np.log2(np.arange(2, len(values) + 2))
    _, group, counts = np.unique(-values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    running = np.concatenate([[0.0], np.cumsum(discount)])
    mean_discount = (running[last] - running[last - counts]) / counts
    return float(mean_discount[group][positive].sum() / running[positive.sum()])


def patch_labels(
    layout_or_boxes: ImageLayout | ArrayLike, evidence_boxes: Sequence[Box], rule: Rule = "any"
) -> NDArray[np.bool_]:
    """Which patches hold evidence.

    ``"any"``: the evidence overlaps the patch; ``"half"``: it covers at least half of it; ``"all"``: it covers all of
    it. The evidence is the union of its boxes. Only the part of a patch that lies in the picture counts, and tokens
    without such a part (separators, padding) are negative.

    Args:
        layout_or_boxes: a picture's layout, or [m, 4] boxes (x0, y0, x1, y1), NaN rows for separators.
        evidence_boxes: boxes in the same pixels (the original's, for a layout); may be empty.
        rule: see above.

    Returns:
        [m] bool.

    Raises:
        InvalidInputError: the rule is unknown, or boxes are not [m, 4] with x1 > x0 and y1 > y0.
    """
    if rule not in get_args(Rule):
        raise InvalidInputError(f'rule={rule!r} is unknown. Choose "any", "half" or "all".')
    if isinstance(layout_or_boxes, ImageLayout):
        height, width = layout_or_boxes.original_size
        patches = np.clip(layout_or_boxes.token_boxes(), 0, [width, height, width, height])
    else:
        patches = _boxes("patch boxes", layout_or_boxes)
    evidence = _boxes("evidence_boxes", evidence_boxes)
    if not (evidence[:, 2:] > evidence[:, :2]).all():
        raise InvalidInputError(f"evidence_boxes need x1 > x0 and y1 > y0; got {evidence.tolist()}.")
    area = (patches[:, 2] - patches[:, 0]) * (patches[:, 3] - patches[:, 1])
    covered = _covered_area(patches, evidence)
    needed = {"any": 0.0, "half": 0.5, "all": 1.0}[rule] * area * (1 - 1e-9)  # areas are sums, rounded
    return np.asarray((covered > 0) & (covered >= needed))


def exact_match(prediction: str, answers: str | Sequence[str]) -> float:
    """1.0 if the prediction equals one of the answers, else 0.0.

    Compared in lower case, without punctuation and articles (a, an, the), with single spaces.

    Raises InvalidInputError when there is no answer to compare with.
    """
    said = _words(prediction)
    return float(any(said == _words(answer) for answer in _answers(answers)))


def token_f1(prediction: str, answers: str | Sequence[str]) -> float:
    """2PR / (P + R) over the words that prediction and answer share, best over the answers.

    Words as in :func:`exact_match`; a word counts as often as both have it. Two empty texts give 1.
    """
    said = _words(prediction)
    return max(_f1(said, _words(answer)) for answer in _answers(answers))


def _checked(scores: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    values, given = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    if values.ndim != 1 or values.shape != given.shape:
        raise InvalidInputError(f"scores {values.shape} and labels {given.shape} must be flat and of equal length.")
    if np.isnan(values).any():
        raise InvalidInputError(f"{int(np.isnan(values).sum())} of {len(values)} scores are NaN and cannot be ranked.")
    if not np.isin(given, (0, 1)).all():
        raise InvalidInputError(f"labels must be 0 or 1; got {np.unique(given).tolist()}.")
    positive = given.astype(bool)
    if positive.all() or not positive.any():
        raise InvalidInputError(
            f"{int(positive.sum())} of {len(positive)} labels are positive: a ranking needs both classes. Skip this "
            "sample."
        )
    return values, positive


def _boxes(name: str, boxes: Any) -> NDArray[np.float64]:
    array = np.asarray(boxes, dtype=np.float64)
    if array.size == 0:
        return array.reshape(-1, 4)
    if array.ndim != 2 or array.shape[1] != 4:
        raise InvalidInputError(f"{name} must be [m, 4], rows (x0, y0, x1, y1); got shape {array.shape}.")
    return array


def _covered_area(patches: NDArray[np.float64], evidence: NDArray[np.float64]) -> NDArray[np.float64]:
    """Area of each patch under the union of the evidence boxes, [m]; 0 for NaN patches.

    The edges of the boxes cut the plane into cells that are wholly inside or outside of the union.
    """
    if len(evidence) == 0:
        return np.zeros(len(patches))
    x, y = np.unique(evidence[:, 0::2]), np.unique(evidence[:, 1::2])
    inside_x = (evidence[:, :1] <= x[:-1]) & (x[1:] <= evidence[:, 2:3])
    inside_y = (evidence[:, 1:2] <= y[:-1]) & (y[1:] <= evidence[:, 3:])
    inside = (inside_y[:, :, None] & inside_x[:, None, :]).any(axis=0)  # [cells along y, cells along x]
    shared_x = _overlap(patches[:, 0], patches[:, 2], x)
    shared_y = _overlap(patches[:, 1], patches[:, 3], y)
    return np.asarray(((shared_y @ inside) * shared_x).sum(axis=1))


def _overlap(start: NDArray[np.float64], stop: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Length that each [start, stop] shares with each interval between edges, [m, intervals]."""
    shared = np.minimum(stop[:, None], edges[1:]) - np.maximum(start[:, None], edges[:-1])
    return np.asarray(np.nan_to_num(np.maximum(shared, 0), nan=0.0))


def _answers(answers: str | Sequence[str]) -> list[str]:
    listed = [answers] if isinstance(answers, str) else list(answers)
    if not listed:
        raise InvalidInputError("answers is empty: pass at least one accepted answer.")
    return listed


def _words(text: str) -> list[str]:
    lowered = "".join(
        char for char in text.lower() if char not in string.punctuation and unicodedata.category(char)[0] != "P"
    )
    return re.sub(r"\b(a|an|the)\b", " ", lowered).split() or lowered.split()  # "A" alone is an answer, no article


def _f1(said: list[str], accepted: list[str]) -> float:
    if not said or not accepted:
        return float(said == accepted)
    shared = (Counter(said) & Counter(accepted)).total()
    return 2 * shared / (len(said) + len(accepted))
