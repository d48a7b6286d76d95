"""False alarms: how often a watch opens an alert on requests whose distribution never changes.

    python benchmarks/alarms.py --json

The requests are made up, one a second: image mass, entropy, agreement and certainty are drawn from skewed beta
distributions, each seed a run of its own that begins without history. No clock is read; the same seeds give the same
rows anywhere.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator
from typing import get_args

import numpy as np
import reports

from vea_sdk.benchmark import Row, Spread, row
from vea_sdk.monitor.alerts import Alert, Kind
from vea_sdk.monitor.record import Figures, Record
from vea_sdk.monitor.watch import Watch

VOTES = (5, 4)  # the default, and one fewer
TOKENS = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=200_000)
    parser.add_argument("--seeds", type=int, default=5)
    reports.add_arguments(parser)
    options = parser.parse_args()
    with reports.progress(options.seeds * options.requests) as tick:
        opened = [opened_by(seed, options.requests, tick) for seed in range(options.seeds)]
    rows: list[Row] = []
    for votes in VOTES:
        runs = [one[votes] for one in opened]
        of_kind = ", ".join(f"{kind} {sum(run[kind] for run in runs)}" for kind in get_args(Kind))
        rows.append(
            row(
                f"alerts that opened with {votes} votes though nothing changed",
                Spread.of([float(run.total()) for run in runs]),
                "alerts",
                shape={"requests": options.requests, "seeds": options.seeds},
                note=f"over all seeds: {of_kind}",
            )
        )
    reports.finish(rows, "alarms", options)
    if options.json:
        print(json.dumps({one.what: one.value for one in rows}, indent=2))


def opened_by(seed: int, requests: int, tick: Callable[[], None]) -> dict[int, Counter[str]]:
    """How many alerts of each kind opened, by the number of votes that it takes."""
    opened: dict[int, Counter[str]] = {votes: Counter() for votes in VOTES}

    def counting(votes: int) -> Callable[[Alert], None]:
        return lambda alert: opened[votes].update([alert.kind] if alert.state == "firing" else [])

    watches = [Watch(votes=votes, on_alert=counting(votes)) for votes in VOTES]
    for record in unchanging(seed, requests):
        for watch in watches:
            watch.write(record)
        tick()
    return opened


def unchanging(seed: int, requests: int) -> Iterator[Record]:
    """Records that are drawn independently of each other from one distribution."""
    rng = np.random.default_rng(seed)
    drawn = zip(*(rng.beta(a, b, requests).tolist() for a, b in ((2, 5), (6, 3), (8, 2), (20, 2))), strict=True)
    for number, (mass, ratio, agreement, certainty) in enumerate(drawn):
        yield Record(
            request=str(number),
            time=float(number),
            model="made up",
            adapter="none",
            layers=(),
            images=1,
            image_tokens=TOKENS,
            prompt_tokens=TOKENS,
            generated_tokens=0,
            mean=Figures(mass, ratio * math.log(TOKENS), None, None, None),
            per_layer=(),
            agreement=agreement,
            certainty_per_token=certainty,
        )


if __name__ == "__main__":
    main()
