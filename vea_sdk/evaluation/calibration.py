"""Is a model right as often as it is sure? Certainty against right and wrong, as figures and as a threshold.

Certainty c is any number from 0 to 1 that says how sure a model was of an answer; the surest first. An answer is kept,
or answered, at a threshold t when c ≥ t, so answers that are equally sure are kept together or not at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vea_sdk.errors import InvalidInputError
from vea_sdk.grounding import metrics

LEAST_KEPT = 10
"""Of fewer answers, the share that is right says too little for a threshold."""


@dataclass(frozen=True)
class ReliabilityBin:
    """The ``n`` answers with ``low`` < certainty ≤ ``high``: how sure they were on average, what share was right."""

    low: float
    high: float
    certainty: float
    right: float
    n: int


@dataclass(frozen=True)
class RiskPoint:
    """At ``threshold``: the share of the answers that is kept, and the share of those that is wrong."""

    threshold: float
    coverage: float
    risk: float


def reliability(certainty: ArrayLike, right: ArrayLike, bins: int = 10) -> list[ReliabilityBin]:
    """The reliability curve: answers in bins of equal width, those bins that hold any, the least sure first.

    The first bin holds certainty 0, too. These are the bins of Guo et al. 2017 and of scikit-learn.

    Args:
        certainty: [n] from 0 to 1. right: [n] booleans or 0/1.
        bins: how many share 0 to 1.

    Raises:
        InvalidInputError: lengths differ, there is no answer, NaN, a certainty outside 0 to 1, something other than 0
            and 1 in ``right``, or no bin.
    """
    sure, hit = _checked(certainty, right)
    if isinstance(bins, bool) or not isinstance(bins, int) or bins < 1:
        raise InvalidInputError(f"bins={bins!r} must be a whole number of at least 1; 10 is usual.")
    edges = np.linspace(0, 1, bins + 1)
    place = np.searchsorted(edges[1:-1], sure)
    counts, sums, hits = (np.bincount(place, of, bins) for of in (np.ones(len(sure)), sure, hit))
    return [
        ReliabilityBin(float(low), float(high), float(total / n), float(hits_here / n), int(n))
        for low, high, total, hits_here, n in zip(edges, edges[1:], sums, hits, counts, strict=False)
        if n
    ]


def expected_calibration_error(certainty: ArrayLike, right: ArrayLike, bins: int = 10) -> float:
    """ECE = Σ_b n_b / N · |share right in b − mean certainty in b| over the bins of :func:`reliability` (Naeini et al.
    2015). Arguments and errors: see there."""
    found = reliability(certainty, right, bins)
    return sum(one.n * abs(one.right - one.certainty) for one in found) / sum(one.n for one in found)


def risk_coverage(certainty: ArrayLike, right: ArrayLike) -> list[RiskPoint]:
    """The risk–coverage curve (Geifman and El-Yaniv 2017): a point per distinct certainty, the highest first.

    Coverage grows from point to point, and is 1 at the last. Arguments and errors: see :func:`reliability`.
    """
    sure, hit = _checked(certainty, right)
    thresholds, group = np.unique(-sure, return_inverse=True)
    kept = np.cumsum(np.bincount(group))
    wrong = np.cumsum(np.bincount(group, ~hit))
    return [
        RiskPoint(float(threshold), float(coverage), float(risk))
        for threshold, coverage, risk in zip(-thresholds, kept / len(sure), wrong / kept, strict=True)
    ]


def aurc(points: Sequence[RiskPoint]) -> float:
    """AURC = Σ_k (coverage_k − coverage_{k−1}) · risk_k over the points of :func:`risk_coverage`, coverage_0 = 0.

    That is the mean, over the N answers, of the risk at each one's own certainty: (1/N) Σ_i risk(c_i). Without ties it
    is the sum of Geifman et al. 2019 (arXiv 1805.08206); answers that tie share the risk of all of them, so their order
    makes no difference. 0 is reached only when nothing is wrong; a certainty that tells nothing gives the share wrong.
    """
    return float(np.diff([0.0, *(point.coverage for point in points)]) @ [point.risk for point in points])


def risk_at(points: Sequence[RiskPoint], coverage: float) -> float:
    """The risk of the fewest surest answers that make up this share, more where the last of them tie."""
    return next(point.risk for point in points if point.coverage >= coverage - 1e-9)


def thinned(points: Sequence[RiskPoint], most: int = 50) -> list[RiskPoint]:
    """At most this many points, evenly spaced in number, the first and the last among them."""
    return [points[place] for place in np.unique(np.linspace(0, len(points) - 1, most).round().astype(int))]


def certainty_auroc(certainty: ArrayLike, right: ArrayLike) -> float | None:
    """P(a right answer is surer than a wrong one) + ½ P(equally sure); None where all are right, or all wrong.

    Arguments and errors: see :func:`reliability`.
    """
    sure, hit = _checked(certainty, right)
    return None if hit.all() or not hit.any() else metrics.auroc(sure, hit)


@dataclass(frozen=True)
class Gate:
    """A threshold of certainty, and what it does to the answers it was found on: how many ``n`` of ``total`` it keeps,
    and what share of these is right."""

    threshold: float
    right: float
    n: int
    total: int

    @property
    def kept(self) -> float:
        """The share of the answers that is kept."""
        return self.n / self.total


def gates(certainty: ArrayLike, right: ArrayLike, least: int = LEAST_KEPT) -> list[Gate]:
    """Every threshold that keeps at least this many answers, the smallest first. Candidates are the certainties found.

    Arguments and errors: see :func:`reliability`.
    """
    total = np.asarray(certainty).size
    found = [Gate(p.threshold, 1 - p.risk, round(p.coverage * total), total) for p in risk_coverage(certainty, right)]
    return [gate for gate in reversed(found) if gate.n >= least]


def find_gate(certainty: ArrayLike, right: ArrayLike, precision: float = 0.9, least: int = LEAST_KEPT) -> Gate | None:
    """The smallest threshold at which at least ``precision`` of the answers kept are right; None where there is none.

    The share is counted on the answers the threshold was chosen on, and is therefore somewhat too good.

    Raises:
        InvalidInputError: ``precision`` is not above 0 and at most 1; and see :func:`reliability`.
    """
    if not 0 < precision <= 1:
        raise InvalidInputError(f"precision={precision} must be above 0 and at most 1; 0.9 is the default.")
    return next((gate for gate in gates(certainty, right, least) if gate.right >= precision - 1e-9), None)


def _checked(certainty: ArrayLike, right: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    sure, given = np.asarray(certainty, dtype=np.float64), np.asarray(right)
    if sure.ndim != 1 or sure.shape != given.shape:
        raise InvalidInputError(f"certainty {sure.shape} and right {given.shape} must be flat and of equal length.")
    if not len(sure):
        raise InvalidInputError("there is no answer to calibrate on. Give the certainty of one or more.")
    wrong = sure[~((sure >= 0) & (sure <= 1))]  # NaN among them
    if len(wrong):
        raise InvalidInputError(
            f"{len(wrong)} of {len(sure)} certainties, such as {wrong[0]}, are no numbers from 0 to 1. Leave answers "
            "without a certainty out; exp() makes one of a log probability."
        )
    if not np.isin(given, (0, 1)).all():
        raise InvalidInputError(f"right must be 0 or 1; got {np.unique(given).tolist()}. Use exact_match(...) == 1.")
    return sure, given.astype(bool)
