"""What a monitor costs the requests of a model on the CPU: generate() under it at several rates, against none.

    python benchmarks/monitor.py --json
    python benchmarks/monitor.py --json --soak                # and 10,000 requests from 8 threads
    python benchmarks/monitor.py --json --seconds 60          # a first look

One run differs from the next by some 5 %, and the limits are finer: to see them takes hundreds of rounds, 25 minutes.

The model of benchmarks/overhead.py: a decoder of 8 layers, 16 query heads, 4 key heads and head dimension 64 inside
LLaVA, random weights, float32; three layers are watched, in a copy of the model that shares its weights. At rate 0.01
one request in a hundred is sampled, so the median is that of a request which is not.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Callable
from functools import partial
from typing import Any

import reports
import torch
from overhead import PROFILED
from soak import Counting, soak

import vea_sdk as vea
from vea_sdk.benchmark import Row, Spread, alternate, ratios, row, timer
from vea_sdk.benchmark.models import Decoder, generate, prompt, random_llava
from vea_sdk.capture import interception
from vea_sdk.monitor.hooks import Hook
from vea_sdk.tiny import checkpoint, demo_sample

LIMITS = {0.0: 1.002, 0.01: 1.005, 1.0: 1.03}
MOST_BYTES = 4096
MOST_GROWTH = 5e6  # bytes


class Keeping(Counting):
    """A sink that keeps what the host spent on each request, in seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.spent: list[float] = []

    def write(self, record: Any) -> None:
        super().write(record)
        self.spent.append(record.timings["monitor"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--new-tokens", type=int, default=33)
    parser.add_argument("--rounds", type=int, default=400, help="of generate() in turns, at most")
    parser.add_argument("--seconds", type=float, default=1500, help="for these rounds")
    parser.add_argument("--soak", action="store_true", help="also many requests from many threads")
    parser.add_argument("--requests", type=int, default=10_000, help="of the soak")
    reports.add_arguments(parser)
    options = parser.parse_args()
    decoder = Decoder()
    model = random_llava(decoder)
    inputs = prompt(model, options.tokens)
    shape = {**decoder.as_dict(), "prompt": options.tokens, "new": options.new_tokens}
    with reports.progress(options.rounds + 1 + options.soak * options.requests) as tick:
        rows = overhead(model, inputs, options, shape, tick)
        if options.soak:
            rows += soaked(options.requests, tick)
    reports.finish(rows, "monitor", options)
    if options.json:
        print(
            json.dumps({one.what: {"value": one.value, "limit": one.limit, "met": one.met} for one in rows}, indent=2)
        )


def overhead(model: Any, inputs: Any, options: Any, shape: Any, tick: Callable[[], None]) -> list[Row]:
    """The ratio of generate() under the monitor to that without; what the host spends; what is copied."""
    sink = Keeping()
    watched = copy.deepcopy(model, {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())})

    def under(rate: float) -> float:
        handle.sample_rate = rate
        return generate(watched, inputs, options.new_tokens).total

    def without() -> float:
        interception.release()  # what the handle holds for all models of the process
        try:
            return generate(model, inputs, options.new_tokens).total
        finally:
            interception.acquire()

    # Attached once, as in production: to attach and detach for every run would measure what that does to memory.
    with vea.monitor(watched, sample_rate=0.0, layers=PROFILED, sinks=[sink]) as handle:
        measures: dict[str, Callable[[], float]] = {"none": without}
        measures |= {str(rate): partial(under, rate) for rate in LIMITS}
        taken = alternate(measures, options.rounds, tick, budget=options.seconds)
    common = {"shape": shape, "dtype": torch.float32}
    note = f"{Spread.of(taken['none']).p50:.3g} s without, {len(taken['none'])} rounds"
    rows = [
        row(f"generate() under a monitor at rate {rate:g} / without", ratios(taken[str(rate)], taken["none"]), "×",
            note=note, **common)
        for rate in LIMITS
    ]  # fmt: skip
    note = f"{len(PROFILED)} layers, {options.new_tokens} rows each; kernel included"
    spent = Spread.of([1e6 * one for one in sink.spent])
    rows.append(row("host time in a sampled request", spent, "µs", note=note, **common))
    with vea.monitor(model, sample_rate=0.0, layers=PROFILED) as handle:
        taken_by_pass = timer(partial(unsampled_pass, *hooks(model)))
        passes = Spread.of([1e6 * taken_by_pass() for _ in range(20)])
    rows.append(row("host time in one pass of a request that is not sampled", passes, "µs", **common))
    rows += [
        row(f"the same at rate {rate:g}, by what the host spends", ratio, "×", limit=LIMITS[rate], note=note, **common)
        for rate, ratio, note in by_host(passes.p50, spent.p50, Spread.of(taken["none"]).p50, options.new_tokens)
    ]
    with vea.monitor(model, sample_rate=1.0, layers=PROFILED, sinks=[sink]) as handle:
        generate(model, inputs, 3)
    copied = float(handle.counters.bytes_copied)
    rows.append(row("copied to the host for a request", copied, "bytes", limit=MOST_BYTES, **common))
    return rows


def by_host(in_pass: float, in_request: float, whole: float, passes: int) -> list[tuple[float, float, str]]:
    """(rate, ratio, note): pairs of whole runs differ by more than what is to be shown, so this is what they would
    differ by alone.

    in_pass, in_request: microseconds that the host spends in a pass that is not sampled, and in a request that is.
    whole: seconds that a request takes.
    """
    note = f"from the figures above: {passes} passes, and the share of requests that are sampled"
    return [(rate, 1 + 1e-6 * ((1 - rate) * in_pass * passes + rate * in_request) / whole, note) for rate in LIMITS]


def hooks(model: Any) -> tuple[list[tuple[Any, Hook]], list[tuple[Any, Hook]]]:
    """The monitor's hooks in the order in which a pass calls them, roughly: those before modules, those after."""
    modules = list(model.modules())
    before = [(module, hook) for module in modules for hook in module._forward_pre_hooks.values()]
    after = [(module, hook) for module in modules[::-1] for hook in module._forward_hooks.values()]
    return tuple([pair for pair in pairs if isinstance(pair[1], Hook)] for pairs in (before, after))  # type: ignore


def unsampled_pass(before: list[tuple[Any, Hook]], after: list[tuple[Any, Hook]]) -> None:
    """One pass of a decoding loop as the monitor sees it, without the model between."""
    cache = torch.nn.Module()  # any object that may be referred to weakly
    arguments = {"input_ids": _TOKEN, "past_key_values": cache}
    for module, hook in before:
        hook(module, (), arguments)
    for module, hook in after:
        hook(module, (), arguments)


_TOKEN = torch.zeros(1, 1, dtype=torch.int64)


def soaked(requests: int, tick: Callable[[], None]) -> list[Row]:
    """Memory, threads, hooks and counters after many requests of the small model that the package carries."""
    vlm = vea.load(checkpoint(), device="cpu")
    asked = [{"type": "image", "image": demo_sample().image}, {"type": "text", "text": demo_sample().question}]
    inputs = vlm.processor.apply_chat_template(
        [{"role": "user", "content": asked}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    found = soak(vlm.model, inputs, requests, tick=tick)
    shape = {"requests": found.requests, "threads": 8}
    counted = found.counters
    unsettled = counted.samples - counted.records - counted.drops
    note = f"{counted.samples} samples = {counted.records} records + {counted.drops} drops"
    return [
        row("soak: growth of resident memory after the warm-up", found.growth, "bytes", limit=MOST_GROWTH, shape=shape),
        row("soak: samples that are neither record nor drop", unsettled, "requests", limit=0.0, shape=shape, note=note),
        row("soak: threads and hooks left", found.threads + found.hooks, "", limit=0.0, shape=shape),
    ]


if __name__ == "__main__":
    main()
