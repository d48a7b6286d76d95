"""How well scores point at what is labelled.

Scikit-learn's definitions (``roc_auc_score``, ``average_precision_score``, ``ndcg_score``), ties treated as there.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vea_sdk.errors import InvalidInputError


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
