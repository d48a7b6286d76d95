"""How sure a mean is, and whether two methods asked the same questions differ."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vea_sdk.errors import InvalidInputError

_AT_ONCE = 4_000_000  # numbers drawn at a time


def bootstrap_means(values: ArrayLike, resamples: int = 10_000, seed: int = 0) -> NDArray[np.float64]:
    """[resamples, ...] the means over [n, ...] values drawn with replacement, n at a time.

    Columns are drawn together. A mean is (how often each value was drawn) · values / n, so that many columns cost
    little more than one.

    Raises InvalidInputError when there is nothing to draw from, or ``resamples`` is not positive.
    """
    given = np.asarray(values, dtype=np.float64)
    n = len(given) if given.ndim else 0
    if n == 0 or resamples < 1:
        raise InvalidInputError(f"values of shape {given.shape} and resamples={resamples}: both must be positive.")
    rng = np.random.default_rng(seed)
    means = np.empty((resamples, *given.shape[1:]))
    step = max(1, _AT_ONCE // n)
    for first in range(0, resamples, step):
        part = means[first : first + step]
        drawn = rng.integers(0, n, (len(part), n)) + n * np.arange(len(part))[:, None]
        times = np.bincount(drawn.ravel(), minlength=n * len(part)).reshape(len(part), n)
        part[:] = np.tensordot(times.astype(np.float64), given, 1) / n
    return means


def intervals(
    values: ArrayLike, level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> NDArray[np.float64] | None:
    """[2, ...] low and high end of the percentile bootstrap interval of the means over [n, ...] values.

    None for n = 1: a single value tells nothing of its spread.
    """
    if len(np.asarray(values)) == 1:
        return None
    drawn = bootstrap_means(values, resamples, seed)
    return np.asarray(np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0))


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> tuple[int, int, float]:
    """The exact test of McNemar: is a change from wrong to right as likely as one from right to wrong?

    p = min(1, 2 · P(X ≤ min(gained, lost))), X ~ Binomial(gained + lost, ½).

    Returns:
        how many the second gained, how many it lost, and p, two-sided.
    """
    gained = sum(bool(b) and not a for a, b in zip(first, second, strict=True))
    lost = sum(bool(a) and not b for a, b in zip(first, second, strict=True))
    total = gained + lost
    tail = sum(math.comb(total, k) for k in range(min(gained, lost) + 1))
    return gained, lost, min(1.0, float(2 * tail / 2**total)) if total else 1.0


def paired_bootstrap(first: ArrayLike, second: ArrayLike, resamples: int = 10_000, seed: int = 0) -> float:
    """p, two-sided, of the mean difference of paired values under no difference.

    Differences are moved to mean 0 and drawn with replacement; p = (1 + draws at least as far from 0 as what was found)
    / (1 + draws) (Davison and Hinkley 1997, section 4.4).
    """
    difference = np.asarray(second, dtype=np.float64) - np.asarray(first, dtype=np.float64)
    found = difference.mean()
    if not difference.any():
        return 1.0
    drawn = bootstrap_means(difference - found, resamples, seed)
    return float((1 + (np.abs(drawn) >= abs(found) - 1e-12).sum()) / (1 + resamples))
