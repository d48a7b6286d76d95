"""The monitor's benchmark measures what it says, and a short soak."""

from __future__ import annotations

import argparse

import pytest
from families import FAMILIES
from monitoring import nothing_is_left  # noqa: F401
from test_benchmarks import needs_scripts, scripts  # noqa: F401
from test_capture import single

from vea_sdk.benchmark.models import Decoder, prompt, random_llava

pytestmark = [needs_scripts, pytest.mark.usefixtures("scripts")]


def test_the_overhead_is_measured_at_each_rate() -> None:
    import monitor

    model = random_llava(Decoder(layers=7, heads=2, kv_heads=1, head_dim=16, intermediate=32))
    options = argparse.Namespace(new_tokens=4, rounds=2, seconds=60)
    ticks: list[int] = []
    rows = monitor.overhead(model, prompt(model, 300), options, {"prompt": 300}, lambda: ticks.append(1))
    assert [one.limit for one in rows] == [None] * 5 + [1.002, 1.005, 1.03, 4096]
    assert rows[5].value < rows[6].value < rows[7].value
    assert all(one.value > 0 for one in rows)
    assert rows[-1].met
    assert rows[4].value < rows[3].value  # a request that is not sampled costs less than one that is
    assert len(ticks) == 3


@pytest.mark.slow
def test_a_soak() -> None:
    """Several times longer by ``benchmarks/monitor.py --soak``."""
    from soak import soak

    family = FAMILIES["llava"]()
    found = soak(family.model, single(family), 1800)
    counted = found.counters
    assert (found.threads, found.hooks) == (0, 0)
    assert counted.requests == counted.samples == 1800
    assert counted.samples == counted.records + counted.drops
    assert found.written == counted.records
    assert counted.unread == counted.lost == 0
    assert found.growth < 5e6
