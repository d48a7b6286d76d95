"""P11: what looking closer costs on the embedded model, on one thread.

    python benchmarks/closer_speed.py

A look in a batch of 16, per picture, against an answer of 8 tokens alone, in turns; and the whole search in seconds.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import reports
import torch

import vea_sdk as vea
from vea_sdk import tiny
from vea_sdk.benchmark import Row, row
from vea_sdk.benchmark.timing import Spread, alternate, ratios

BATCH, TOKENS, LIMIT = 16, 8, 0.45
OF_ANSWER: dict[str, Any] = {"max_new_tokens": TOKENS, "min_new_tokens": TOKENS, "words": False}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    reports.add_arguments(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    reports.finish(measured(vea.load(tiny.checkpoint(), device="cpu"), options.rounds), "closer-speed", options)


def measured(vlm: vea.VLM, rounds: int) -> list[Row]:
    page = tiny.scene(2000)
    images = [view.image for view in vea.views.windows()(page.image)[:BATCH]]
    questions = [page.question] * BATCH
    calls: dict[str, Callable[[], object]] = {
        "a look": lambda: vlm.attend_many(images, questions),
        "an answer alone": lambda: vlm.ask(images[0], page.question, mode="none", **OF_ANSWER),
        "an answer in a batch of 16": lambda: vlm.ask_many(images, questions, "none", batch_size=BATCH, **OF_ANSWER),
    }
    with reports.progress(rounds) as advance:
        taken = alternate({name: partial(reports.seconds, call) for name, call in calls.items()}, rounds, advance)
    for name in ("a look", "an answer in a batch of 16"):
        taken[name] = [seconds / BATCH for seconds in taken[name]]
    search = partial(vlm.ask, page.image, page.question, "closer", looks=54, max_new_tokens=TOKENS)
    whole = Spread.of([reports.seconds(search) for _ in range(5)])
    shape = {"batch": BATCH, "tokens": TOKENS, "threads": 1}
    looks, alone, together = taken.values()
    return [
        row("a look / an answer alone", ratios(looks, alone), "x", target="P11", limit=LIMIT, shape=shape),
        row("a look / an answer in a batch of 16", ratios(looks, together), "x", shape=shape),
        *(row(name, Spread.of([1e3 * one for one in values]), "ms", shape=shape) for name, values in taken.items()),
        row("54 looks and 4 answers", whole, "s", shape={"threads": 1}),
    ]


if __name__ == "__main__":
    main()
