"""P1, P2, P4, P5 and P7 on a GPU. Rows are written as they are measured, so a cut leaves those before it.

python benchmarks/gpu.py kernels --out results-gpu    # the capture kernel: bandwidth, device time, launches
python benchmarks/gpu.py models --out results-gpu     # 7B shapes of random weights: generate() on and off, eager
python benchmarks/gpu.py once                         # a few launches, for a profiler
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import memory
import reports
import torch
from shapes import LLAVA, QWEN
from torch.profiler import ProfilerActivity, profile

from vea_sdk import adapters
from vea_sdk.benchmark import Row, Spread, alternate, cuda, ratios, row, save
from vea_sdk.benchmark.kernels import Problem, Shape
from vea_sdk.benchmark.models import generate
from vea_sdk.capture import Session

BANDWIDTH = [  # P1: B·Lk of 64k keys and more
    *(Shape(batch, *QWEN[:2], keys, QWEN[2]) for batch, keys in ((1, 65536), (8, 8192), (32, 2048), (32, 8192))),
    Shape(8, *LLAVA[:2], 8192, LLAVA[2]),
    Shape(32, *LLAVA[:2], 2048, LLAVA[2]),
]
LATENCY = [Shape(1, *heads[:2], keys, heads[2]) for heads in (QWEN, LLAVA) for keys in (256, 640, 1300, 2048, 4096)]
ONCE = [LATENCY[2], BANDWIDTH[3], BANDWIDTH[4]]  # what a profiler looks at
COPIED = 1 << 30  # bytes that the copy moves: half of them read, half written; 1 << 32 is 1% faster on an H100
PROMPTS = (1400, 4096)  # tokens: an everyday picture; P5's length
LIMITS = {"profiled": 1.01, "all": 1.05}

Timer = Callable[[Callable[[], object]], Callable[[], float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["kernels", "models", "once"])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, default=reports.RESULTS)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("torch sees no CUDA device here, so there is nothing to measure")
    if options.part == "once":
        for shape in ONCE:
            Problem.random(shape, torch.bfloat16, "cuda").kernel()
        torch.cuda.synchronize()
        return
    rows: list[Row] = []
    for one in kernels(options.rounds) if options.part == "kernels" else models(options.rounds):
        rows.append(one)
        save(rows, options.out / f"gpu-{options.part}.json")
        print(one, flush=True)


def kernels(rounds: int) -> Iterator[Row]:
    yield row("kernel launches per capture", launches(), "", device="cuda", target="P2", limit=1)
    for shape in LATENCY:
        yield latency(shape, rounds)
    for dtype in (torch.bfloat16, torch.float32):
        for shape in BANDWIDTH:
            yield bandwidth(shape, dtype, rounds)
    for shape in (LATENCY[2], BANDWIDTH[3]):
        yield from against_torch(shape, rounds)


def launches() -> int:
    """Kernels that one call starts, by the profiler; no synchronisation may happen in it."""
    problem = Problem.random(LATENCY[0], torch.bfloat16, "cuda")
    problem.kernel()
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as recorded:
        torch.cuda.set_sync_debug_mode("error")
        problem.kernel()
        torch.cuda.set_sync_debug_mode("default")
        torch.cuda.synchronize()
    return sum(event.device_type == torch.autograd.DeviceType.CUDA for event in recorded.events())


def bandwidth(shape: Shape, dtype: torch.dtype, rounds: int, device: str = "cuda", clock: Timer = cuda.timer) -> Row:
    """P1: bytes of K per second over the bytes per second of a large copy, in turns.

    Problems take turns until they exceed any cache fourfold, so that K comes from memory.
    """
    n_bytes = shape.key_bytes(dtype)
    problems = [Problem.random(shape, dtype, device) for _ in range(1 + 4 * last_level_cache(device) // n_bytes)]
    turn = itertools.cycle(problems)
    copying = cuda.copy(COPIED, device)
    taken = alternate({"kernel": clock(lambda: next(turn).kernel()), "copy": clock(copying)}, rounds)
    ratio = ratios([n_bytes / t for t in taken["kernel"]], [COPIED / t for t in taken["copy"]])
    rates = (n_bytes / Spread.of(taken["kernel"]).p50 / 1e9, COPIED / Spread.of(taken["copy"]).p50 / 1e9)
    note = "{:.0f} GB/s of keys, copy {:.0f} GB/s".format(*rates)
    what = "capture kernel's rate of reading keys / rate of a copy"
    common = {"device": device, "dtype": dtype, "shape": shape.as_dict(), "note": note}
    return row(what, ratio, "of the copy", target="P1", limit=0.85, better="higher", **common)


def last_level_cache(device: str) -> int:
    return int(torch.cuda.get_device_properties(device).L2_cache_size) if device == "cuda" else 1 << 20


def latency(shape: Shape, rounds: int) -> Row:
    """P2: device time per call out of a replayed CUDA graph of many calls, K in the cache where it fits."""
    problem = Problem.random(shape, torch.bfloat16, "cuda")
    taken = alternate({"kernel": cuda.timer(problem.kernel)}, rounds)["kernel"]
    spread = Spread.of([1e6 * seconds for seconds in taken])
    return row("capture kernel on the device, CUDA graph replay", spread, "µs", device="cuda", dtype=torch.bfloat16,
               shape=shape.as_dict(), target="P2", limit=6.0)  # fmt: skip


def against_torch(shape: Shape, rounds: int) -> Iterator[Row]:
    problem = Problem.random(shape, torch.bfloat16, "cuda")
    calls = {"kernel": problem.kernel, "torch": problem.torch, "sdpa": problem.sdpa}
    taken = alternate({name: cuda.timer(call) for name, call in calls.items()}, rounds)
    common = {"device": "cuda", "dtype": torch.bfloat16, "shape": shape.as_dict()}
    what = "capture kernel / torch matmul + softmax + mean"
    yield row(what, ratios(taken["kernel"], taken["torch"]), "×", **common)
    yield row("capture kernel / SDPA's step for the layer", ratios(taken["kernel"], taken["sdpa"]), "×", **common)


def models(rounds: int) -> Iterator[Row]:
    from seven_b import FAMILIES

    for family in FAMILIES.values():
        config = family.config()
        model = family.build(config, "cuda")
        for tokens in PROMPTS:
            inputs = {name: value.to("cuda") for name, value in family.prompt(config, tokens).items()}
            inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
            shape = {"model": family.name, "prompt": tokens, "new": 33}
            turns = rounds if tokens == PROMPTS[0] else max(1, rounds // 3)  # decoding is much the same there
            yield from end_to_end(model, inputs, family.profiled, shape, turns, "cuda")
        del model
        torch.cuda.empty_cache()


def end_to_end(
    model: Any, inputs: Any, profiled: tuple[int, ...], shape: dict[str, Any], rounds: int, device: str
) -> Iterator[Row]:
    """P4, P7 and P5 for one model and one prompt."""
    common = {"device": device, "dtype": model.dtype, "shape": shape}
    new, layers = shape["new"], list(profiled)
    measures = {
        "off": partial(generate, model, inputs, new),
        "profiled": partial(generate, model, inputs, new, layers),
        "all": partial(generate, model, inputs, new, "all"),
    }
    taken = alternate(measures, rounds)
    for name, limit in LIMITS.items():
        label = f"layers {', '.join(map(str, layers))}" if name == "profiled" else "all layers"
        for part in ("total", "prefill", "decode"):
            on, off = ([getattr(one, part) for one in taken[key]] for key in (name, "off"))
            note = f"{Spread.of(off).p50:.3g} s without"
            yield row(f"generate() with capture of {label} / without: {part}", ratios(on, off), "×", target="P4",
                      limit=limit, note=note, **common)  # fmt: skip
    yield stopping_early(model, inputs, layers, rounds, common)
    calls = memory.prefills(model, inputs)
    peaks = {name: memory.peak(call, device) for name, call in calls.items()}
    compared = {name: partial(reports.seconds, calls[name], device) for name in ("eager", "capture")}
    taken_eager = alternate(compared, max(1, rounds // 2))
    slower = ratios(taken_eager["eager"], taken_eager["capture"])
    yield from memory.rows(slower, peaks, shape, model.dtype, device)


def stopping_early(model: Any, inputs: Any, layers: list[int], rounds: int, common: Any) -> Row:
    """P7; the limit holds for models whose deepest profiled layer lies at 85% of the stack or less."""
    adapter = adapters.find(model)

    def plain() -> None:
        with torch.no_grad():
            model(**inputs, use_cache=False, logits_to_keep=1)

    def attend() -> None:
        with Session(model, layers, "last", None, None, adapter, stop_early=True):
            plain()

    measures = {"attend": partial(reports.seconds, attend, common["device"]),
                "plain": partial(reports.seconds, plain, common["device"])}  # fmt: skip
    taken = alternate(measures, rounds)
    depth = adapter.n_layers
    what = f"pass that stops in layer {max(layers)} of {depth} / plain SDPA prefill"
    limit = 0.9 if max(layers) <= 0.85 * depth else None
    return row(what, ratios(taken["attend"], taken["plain"]), "×", target="P7", limit=limit, **common)


if __name__ == "__main__":
    main()
