"""Intervals and significance against scipy, enumeration, and theory."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy import stats

from vea_sdk.errors import InvalidInputError
from vea_sdk.evaluation.statistics import bootstrap_means, intervals, mcnemar, paired_bootstrap


def test_resamples_are_those_of_the_definition() -> None:
    """All 27 ways to draw three of three, counted, against how often each mean was drawn."""
    values = [0.0, 1.0, 5.0]
    ways = [round(sum(drawn) / 3, 9) for drawn in product(values, repeat=3)]
    drawn = np.round(bootstrap_means(values, 100_000), 9).tolist()
    assert set(drawn) == set(ways)
    for mean in set(ways):
        assert drawn.count(mean) / 100_000 == pytest.approx(ways.count(mean) / 27, abs=0.006)  # 4 standard errors


@pytest.mark.parametrize("n", [5, 60, 400])
def test_interval_equals_scipy(n: int) -> None:
    for draw in (np.random.default_rng(n).random(n), (np.random.default_rng(n).random(n) < 0.7).astype(float)):
        theirs = stats.bootstrap((draw,), np.mean, n_resamples=20_000, method="percentile", rng=1).confidence_interval
        low, high = intervals(draw, resamples=20_000)
        spread = draw.std() / np.sqrt(n)
        assert low == pytest.approx(theirs.low, abs=max(0.1 * spread, 1 / n if n < 10 else 0))
        assert high == pytest.approx(theirs.high, abs=max(0.1 * spread, 1 / n if n < 10 else 0))


def test_interval_is_seeded_and_ends_with_its_data() -> None:
    values = np.random.default_rng(0).random(50)
    assert np.array_equal(intervals(values, seed=3), intervals(values, seed=3))
    assert not np.array_equal(intervals(values, seed=3), intervals(values, seed=4))
    assert intervals([1.0] * 8).tolist() == [1.0, 1.0]
    assert intervals([0.5]) is None
    for nothing in ([], 0.5):
        with pytest.raises(InvalidInputError, match="must be positive"):
            bootstrap_means(nothing)


def test_columns_are_drawn_together() -> None:
    values = np.random.default_rng(0).random((30, 3))
    together = bootstrap_means(values, 500)
    assert together.shape == (500, 3)
    for column in range(3):
        assert np.allclose(together[:, column], bootstrap_means(values[:, column], 500), rtol=0, atol=1e-12)
    assert intervals(values).shape == (2, 3)


def test_large_samples_are_drawn_in_parts() -> None:
    values = np.random.default_rng(0).random(300_000)
    means = bootstrap_means(values, 40)
    assert len(set(means.tolist())) == 40
    assert means.std() == pytest.approx(values.std() / np.sqrt(len(values)), rel=0.4)


def test_mcnemar_equals_the_binomial_test() -> None:
    for gained, lost in product(range(0, 40, 3), repeat=2):
        first = [False] * gained + [True] * lost + [True, False] * 5
        second = [True] * gained + [False] * lost + [True, False] * 5
        expected = stats.binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
        assert mcnemar(first, second) == (gained, lost, pytest.approx(expected, rel=1e-12))


def test_mcnemar_of_thousands() -> None:
    assert mcnemar([False] * 3000, [True] * 3000)[2] == 0.0
    p = mcnemar([False] * 1600 + [True] * 1500, [True] * 1600 + [False] * 1500)[2]
    assert p == pytest.approx(stats.binomtest(1600, 3100).pvalue, rel=1e-9)


@pytest.mark.parametrize("tenths", [(1, 2, -1), (0, 1, 0, 1), (3, 6, -3), (2, 1, 0, 0, 2), (7, 0, 0, 0)], ids=str)
def test_paired_bootstrap_counts_ties(tenths: tuple[int, ...]) -> None:
    """Every way to draw, counted in whole numbers: those exactly as far from 0 as what was found count."""
    n, total = len(tenths), sum(tenths)
    draws = [abs(sum(n * tenths[i] - total for i in drawn)) for drawn in product(range(n), repeat=n)]
    share = sum(distance >= n * abs(total) for distance in draws) / n**n
    assert share > sum(distance > n * abs(total) for distance in draws) / n**n, "no draw ties"
    before = np.random.default_rng(1).integers(0, 9, n) / 10
    p = paired_bootstrap(before, before + np.array(tenths) / 10, resamples=100_000)
    assert p == pytest.approx(share, abs=0.006)  # 4 standard errors


def test_paired_bootstrap_agrees_with_theory() -> None:
    """With many samples the means are normal, and so p is that of the z test on the differences."""
    rng = np.random.default_rng(5)
    for shift in (0.0, 0.02, 0.05):
        before = rng.random(500)
        after = before + rng.normal(shift, 0.3, 500)
        difference = after - before
        z = abs(difference.mean()) / (difference.std() / np.sqrt(500))
        assert paired_bootstrap(before, after) == pytest.approx(2 * stats.norm.sf(z), abs=0.02)
    assert paired_bootstrap(before, before) == 1.0
    assert paired_bootstrap(np.zeros(100), np.linspace(0.4, 0.6, 100), resamples=999) == 1 / 1000
