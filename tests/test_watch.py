"""Quantiles against numpy, drift against scipy, alerts on traffic whose change is known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from records import record, stationary
from scipy.stats import entropy as kullback_leibler

from vea_sdk.errors import InvalidInputError
from vea_sdk.monitor.alerts import Alert
from vea_sdk.monitor.record import Record
from vea_sdk.monitor.rolling import Reference, Rolling
from vea_sdk.monitor.sinks import Sink
from vea_sdk.monitor.watch import Watch

FLOATS = st.floats(-1e6, 1e6, allow_subnormal=False)


def watched(records: list[Record], **options: Any) -> tuple[Watch, list[Alert]]:
    alerts: list[Alert] = []
    watch = Watch(on_alert=alerts.append, **options)
    for one in records:
        watch.write(one)
    return watch, alerts


# --- quantiles -----------------------------------------------------------------------------------------------


@given(st.lists(FLOATS, min_size=1, max_size=60), st.integers(1, 20), st.floats(0, 1))
def test_quantiles_are_those_of_the_last_values(values: list[float], window: int, q: float) -> None:
    rolling = Rolling(window)
    for value in values:
        rolling.add(value)
    assert list(rolling) == values[-window:]
    assert rolling.quantile(q) == pytest.approx(np.quantile(values[-window:], q), rel=1e-9, abs=1e-9)


def test_quantile_of_nothing_is_nan() -> None:
    assert np.isnan(Rolling(3).quantile(0.5))


# --- drift ---------------------------------------------------------------------------------------------------


def psi(reference: np.ndarray, present: np.ndarray) -> float:
    """Over deciles, from numpy's histogram and the two Kullback-Leibler divergences of scipy."""
    edges = [-np.inf, *np.quantile(reference, np.arange(1, 10) / 10), np.inf]
    p, q = (np.histogram(x, edges)[0] + 0.5 for x in (present, reference))
    return float(kullback_leibler(p, q) + kullback_leibler(q, p))


@pytest.mark.parametrize("shift", [0.0, 0.1, 0.5, 4.0])
def test_psi(shift: float) -> None:
    rng = np.random.default_rng(7)
    reference, present = rng.normal(size=703), rng.normal(shift, 1 + shift, size=289)
    assert Reference(reference).psi(present) == pytest.approx(psi(reference, present), rel=1e-12)


def test_psi_sees_a_constant_move_to_either_side() -> None:
    reference = Reference([0.5] * 200)
    assert reference.psi([0.5] * 100) < 0.01
    assert reference.psi([0.4] * 100) > 2
    assert reference.psi([0.6] * 100) > 2


def test_chance_alone_exceeds_the_noise_limit_about_as_often_as_it_says() -> None:
    """At its 99.99% quantile: with 4,000 draws, 0.4 expected; 5 or more have a probability below 1e-4."""
    rng = np.random.default_rng(8)
    for n in (50, 500):
        exceeded = 0
        for _ in range(2000):
            reference = Reference(rng.normal(size=n))
            exceeded += reference.psi(rng.normal(size=n)) > reference.noise(n)
        assert exceeded < 5


def test_reference_of_nothing() -> None:
    for values in ([], [1.0, float("nan")]):
        with pytest.raises(InvalidInputError, match="finite values"):
            Reference(values)


# --- alerts --------------------------------------------------------------------------------------------------


def test_no_alarm_while_nothing_changes() -> None:
    watch, alerts = watched(stationary(20_000, seed=4))
    assert alerts == []
    assert watch.firing == []


def test_one_vote_alerts_on_what_lies_below_its_own_p1() -> None:
    """The plain rule, without votes: by its definition about one request in a hundred and rule."""
    _, alerts = watched(stationary(10_000, seed=5), votes=1, recent=1, cooldown=0)
    ignored = [alert for alert in alerts if alert.kind == "image_ignored" and alert.state == "firing"]
    assert 0.005 < len(ignored) / 10_000 < 0.015
    assert all(alert.value < alert.limit for alert in ignored)


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("image_ignored", {"mass": 0.001}),
        ("attention_scattered", {"mass": 0.4, "entropy": float(np.log(64)) * 0.999}),
        ("layers_disagree", {"mass": 0.4, "agreement": 0.01}),
        ("unsure", {"mass": 0.4, "certainty_per_token": 0.5}),
    ],
)
def test_a_change_opens_its_alert_and_the_return_closes_it(kind: str, change: dict[str, float]) -> None:
    usual = stationary(1000, seed=6)
    changed = [record(1000 + i, **change) for i in range(8)]
    watch, alerts = watched([*usual, *changed])
    [alert] = [one for one in alerts if one.kind == kind]
    assert (alert.state, alert.model) == ("firing", "tiny")
    assert 1000 < int(alert.request[1:]) <= 1005  # by the fifth at the latest
    assert alert in watch.firing
    usual = [record(2000 + i, 0.4) for i in range(100)]
    for one in usual:
        watch.write(one)
    assert [one.state for one in alerts if one.kind == kind] == ["firing", "resolved"]
    assert kind not in {one.kind for one in watch.firing}


@pytest.mark.parametrize("recent", [1, 7, 20])
def test_an_alert_closes_when_none_of_the_last_requests_was_unusual(recent: int) -> None:
    _, alerts = watched([record(0, nan=1), *(record(i) for i in range(1, 30))], recent=recent, votes=1)
    assert [(alert.state, alert.request) for alert in alerts] == [("firing", "r0"), ("resolved", f"r{recent}")]


@pytest.mark.parametrize("recent", [1, 20, 60])
def test_a_limit_is_of_the_values_before_those_that_vote(recent: int) -> None:
    masses = [0.9 - 0.001 * i for i in range(300)]
    _, alerts = watched([record(i, mass) for i, mass in enumerate(masses)], recent=recent, votes=1)
    first = alerts[0]  # the masses fall, so that each is unusual from min_history on
    before = masses[: int(first.request[1:]) - recent]
    assert len(before) == 200
    assert first.limit == pytest.approx(np.quantile(before, 0.01), rel=1e-12)


def test_an_alert_that_comes_and_goes_is_quiet_for_its_cooldown() -> None:
    usual = stationary(1000, seed=9)
    # One request a second, six in a minute unlike any before.
    flicker = [record(1000 + i, 1 / (1000 + i) if i % 60 < 6 else 0.4) for i in range(1200)]
    _, alerts = watched([*usual, *flicker], cooldown=300)
    opened = [alert.time for alert in alerts if alert.kind == "image_ignored" and alert.state == "firing"]
    assert 2 <= len(opened) <= 4
    assert np.diff(opened).min() >= 300


def moved(records: list[Record], by: float) -> list[Record]:
    return [replace(one, time=one.time + by) for one in records]


def nan_then_none(start: int) -> list[Record]:
    """An alert that opens and, 20 seconds later, has closed."""
    return [record(start, nan=1), *(record(i) for i in range(start + 1, start + 21))]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (nan_then_none(0), moved(nan_then_none(400), -86_400)),  # the clock is set back by a day
        (moved(nan_then_none(0)[:1], 1e9) + nan_then_none(0)[1:], nan_then_none(400)),  # one record in the future
        (moved(nan_then_none(0), 253e9), moved(nan_then_none(400), -1e6)),  # the year 9987, then 1970
    ],
)
def test_a_clock_that_is_wrong_silences_nothing(first: list[Record], second: list[Record]) -> None:
    _, alerts = watched([*first, *second], cooldown=300)
    assert [alert.state for alert in alerts] == ["firing", "resolved"] * 2


@pytest.mark.parametrize("step", [-250, -30, 0, 30, 250])
def test_a_clock_that_is_adjusted_floods_nothing(step: float) -> None:
    _, alerts = watched([*nan_then_none(0), *moved(nan_then_none(21), step - 21)], cooldown=300)
    assert [alert.state for alert in alerts] == ["firing", "resolved"]


def test_nan_opens_at_once() -> None:
    _, alerts = watched([record(0), record(1, mass=None, nan=7)])
    [alert] = alerts
    assert (alert.kind, alert.state, alert.value, alert.request) == ("nan", "firing", 7, "r1")


def test_drift_is_found_and_named() -> None:
    rng = np.random.default_rng(10)
    usual = stationary(2500, seed=10)
    lower = [
        record(2500 + i, float(x), entropy=usual[i].mean.entropy) for i, x in enumerate(0.7 * rng.beta(2, 5, 1200))
    ]
    watch, alerts = watched([*usual, *lower], window=500, votes=20)
    drifted = [alert for alert in alerts if alert.kind == "drift" and alert.statistic == "image_mass"]
    assert [alert.state for alert in drifted] == ["firing"]
    assert 2500 < int(drifted[0].request[1:]) < 3100
    last = [one.mean.image_mass for one in [*usual, *lower]][-520:-20]  # without those that still vote
    first = [one.mean.image_mass for one in usual][:500]
    found = watch.summary()["models"]["tiny"]["statistics"]["image_mass"]["psi"]
    assert found == pytest.approx(psi(np.array(first), np.array(last)), rel=0.2)  # computed up to 50 requests ago
    watch.rebase()
    for one in lower[:700]:
        watch.write(one)
    assert not [alert for alert in watch.firing if alert.statistic == "image_mass"]


def test_no_value_of_the_reference_is_compared_with_it() -> None:
    def found(watch: Watch) -> float | None:
        return watch.summary()["models"]["tiny"]["statistics"]["image_mass"]["psi"]

    watch, _ = watched(stationary(300, seed=12), window=100, min_history=50)
    assert found(watch) is not None
    watch.rebase()
    for number, one in enumerate(stationary(100, seed=13, start=300)):
        assert found(watch) is None, f"after {number} new values"
        watch.write(one)
    assert found(watch) is not None


def test_slower_answers_are_no_drift() -> None:
    slow = [record(i, timings={"total": 1.0 if i < 600 else 9.0}) for i in range(1200)]
    assert watched(slow, window=300)[1] == []


def test_drift_from_records_given_as_reference() -> None:
    last_week = [record(i, 0.2 + 0.001 * i) for i in range(300)]
    watch, alerts = watched([record(i, 0.6 + 0.001 * (i % 300)) for i in range(400)], window=300, reference=last_week)
    assert ("drift", "image_mass") in {(alert.kind, alert.statistic) for alert in alerts}
    assert watch.summary()["models"]["tiny"]["requests"] == 400


def test_models_are_followed_apart() -> None:
    both = [one for i in range(600) for one in (record(i, 0.8, model="high"), record(i, 0.1, model="low"))]
    watch, alerts = watched(both)
    assert alerts == []
    found = watch.summary()["models"]
    assert {model: fields["statistics"]["image_mass"]["p50"] for model, fields in found.items()} == {
        "high": 0.8,
        "low": 0.1,
    }


def test_summary_counts_and_quantiles() -> None:
    records = stationary(700, seed=11)
    records += [record(700, finished="failed"), record(701, mass=None, dropped=True), record(702, nan=1)]
    watch, _ = watched(records, window=300)
    assert isinstance(watch, Sink)
    found = watch.summary()["models"]["tiny"]
    assert {name: found[name] for name in ("requests", "dropped", "failed", "nan")} == {
        "requests": 703,
        "dropped": 1,
        "failed": 1,
        "nan": 1,
    }
    mass = [one.mean.image_mass for one in records if not one.dropped][-300:]
    for name, q in (("p1", 0.01), ("p50", 0.5), ("p99", 0.99)):
        assert found["statistics"]["image_mass"][name] == pytest.approx(np.quantile(mass, q))
    assert found["statistics"]["image_mass"]["last"] == 0.4


def test_every_callback_is_called_and_the_first_error_raised() -> None:
    got: list[Alert] = []

    def broken(alert: Alert) -> None:
        raise RuntimeError("pager is down")

    watch = Watch(on_alert=[broken, got.append])
    with pytest.raises(RuntimeError, match="pager"):
        watch.write(record(0, nan=1))
    assert len(got) == 1
    watch.write(record(1, nan=1))  # still open: no second call


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 100}, "min_history=200"),
        ({"votes": 30}, "votes=30"),
        ({"votes": 0}, "votes=0"),
        ({"tail": 0.5}, "tail=0.5"),
        ({"psi": 0.0}, "psi=0.0"),
        ({"cooldown": -1.0}, "cooldown=-1.0"),
        ({"reference": [record(0)]}, "reference holds 1 records of 'tiny'"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        Watch(**options)
