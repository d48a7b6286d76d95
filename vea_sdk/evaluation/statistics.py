"""How sure a mean is, and whether two methods asked the same questions differ."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vea_sdk.errors import InvalidInputError

_AT_ONCE = 4_000_000  # numbers drawn at a time


def bootstrap_means(values: ArrayLike, resamples: int = 10_000, seed: int = 0) -> NDArray[np.float64]:
    """[resamples] the means of ``values`` drawn with replacement, as many as there are.

    Raises InvalidInputError when there is nothing to draw from, or ``resamples`` is not positive.
    """
    given = np.asarray(values, dtype=np.float64)
    if given.ndim != 1 or len(given) == 0 or resamples < 1:
        raise InvalidInputError(f"values of shape {given.shape} and resamples={resamples}: both must be positive.")
    rng = np.random.default_rng(seed)
    step = max(1, _AT_ONCE // len(given))
    counts = [min(step, resamples - first) for first in range(0, resamples, step)]
    return np.concatenate([given[rng.integers(0, len(given), (count, len(given)))].mean(1) for count in counts])


def interval(
    values: ArrayLike, level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float] | None:
    """The percentile bootstrap interval of the mean; None for a single value, which tells nothing of its spread."""
    if np.size(values) == 1:
        return None
    low, high = np.quantile(bootstrap_means(values, resamples, seed), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


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
