"""How long, and how much longer than another call: side by side, never one after the other.

Machines drift: a neighbour wakes, a clock steps down. Two calls measured in turns drift together, and the
ratio within a pair hardly moves. So ratios are taken per round, and their median is what is reported.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Spread:
    """The 20th, 50th and 80th percentile of what was measured."""

    p20: float
    p50: float
    p80: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        ordered = sorted(values)
        if len(ordered) == 1:
            return cls(ordered[0], ordered[0], ordered[0])
        fifths = statistics.quantiles(ordered, n=10, method="inclusive")
        return cls(fifths[1], statistics.median(ordered), fifths[7])


def ratios(numerator: Sequence[float], denominator: Sequence[float]) -> Spread:
    """The spread of a/b over the rounds of :func:`alternate`."""
    return Spread.of([a / b for a, b in zip(numerator, denominator, strict=True)])


def alternate(
    measures: Mapping[str, Callable[[], T]],
    rounds: int,
    tick: Callable[[], object] | None = None,
    warm_up: bool = True,
    budget: float = float("inf"),
) -> dict[str, list[T]]:
    """What each measure returned in each round, in turns, each round in an order of its own: A B C, C A B, B A C, ...

    So none of them always comes after the same one, whose caches and memory it finds, nor later in a drift. With
    ``warm_up`` one round before them is thrown away: it fills caches and pools. Rounds end early, but not before the
    third, once ``budget`` seconds are spent. ``tick`` is called after every round.
    """
    found: dict[str, list[T]] = {name: [] for name in measures}
    order = random.Random(0)
    started = time.perf_counter()
    for i in range(rounds + warm_up):
        if i >= 3 + warm_up and time.perf_counter() - started > budget:
            break
        for name in order.sample(list(measures), len(measures)):
            value = measures[name]()
            if i >= warm_up:
                found[name].append(value)
        if tick is not None:
            tick()
    return found


def timer(call: Callable[[], object], at_least: float = 0.002) -> Callable[[], float]:
    """A measure: seconds per call, from as many calls in a row as take ``at_least`` seconds."""
    call()
    repeats, taken = 1, _seconds(call, 1)
    while taken < at_least:
        repeats = max(repeats + 1, min(100 * repeats, int(1.2 * repeats * at_least / max(taken, 1e-9))))
        taken = _seconds(call, repeats)
    return lambda: _seconds(call, repeats) / repeats


def _seconds(call: Callable[[], object], repeats: int) -> float:
    started = time.perf_counter()
    for _ in range(repeats):
        call()
    return time.perf_counter() - started
