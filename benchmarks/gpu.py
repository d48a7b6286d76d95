"""P1, P2, P4, P5 and P7 on a GPU. Rows are written as they are measured, so a cut leaves those before it.

python benchmarks/gpu.py kernels --out results-gpu    # the capture kernel: bandwidth, device time, launches
python benchmarks/gpu.py models --out results-gpu     # 7B shapes of random weights: capture on and off, eager
python benchmarks/gpu.py once                         # a few launches, for a profiler
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import memory
import reports
import torch
from prefill import passes, stopped
from shapes import LLAVA, QWEN
from torch.profiler import ProfilerActivity, profile

from vea_sdk.benchmark import Row, Spread, alternate, cuda, ratios, row, save
from vea_sdk.benchmark.kernels import Problem, Shape
from vea_sdk.benchmark.models import Steps

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
STEPS, SECONDS = 300, 15.0  # rounds of decoding steps at the most, and how long they may take

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
    """What is worth most comes first: a model's steps of decoding, then its prompts, the long one before the short."""
    from seven_b import FAMILIES

    for family in FAMILIES.values():
        config = family.config()
        model = family.build(config, "cuda")
        prompts = {}
        for tokens in PROMPTS:
            inputs = {name: value.to("cuda") for name, value in family.prompt(config, tokens).items()}
            prompts[tokens] = {**inputs, "pixel_values": inputs["pixel_values"].to(model.dtype)}
        shapes = {tokens: {"model": family.name, "prompt": tokens} for tokens in PROMPTS}
        for tokens in PROMPTS:
            yield from decoding(model, prompts[tokens], family.profiled, shapes[tokens], STEPS, "cuda")
        for tokens in reversed(PROMPTS):
            yield from prefilling(model, prompts[tokens], family.profiled, shapes[tokens], rounds, "cuda")
        del model
        torch.cuda.empty_cache()


def decoding(
    model: Any, inputs: Any, profiled: Sequence[int], shape: dict[str, Any], rounds: int, device: str
) -> Iterator[Row]:
    """P4 for the steps of decoding, which follow each other so closely that a drift of the machine hits all alike."""
    steps = Steps(model, inputs, {"profiled": list(profiled), "all": "all"})
    taken = alternate(steps.measures(), rounds, budget=SECONDS)
    for session in steps.sessions.values():
        # The prompt's, and two of each round and of the one thrown away.
        assert session.attention.shape[2] == 1 + 2 * (len(taken["off"]) + 1)
    yield from on_and_off("decoding step", taken, profiled, device=device, dtype=model.dtype, shape=shape)


def on_and_off(what: str, taken: dict[str, list[float]], profiled: Sequence[int], **common: Any) -> Iterator[Row]:
    """P4: with capture over without, for the profiled layers and for all."""
    for name, limit in LIMITS.items():
        label = f"layers {', '.join(map(str, profiled))}" if name == "profiled" else "all layers"
        note = f"{milliseconds(taken['off'])} without, {milliseconds(taken[name])} with, {len(taken[name])} rounds"
        yield row(f"{what} with capture of {label} / without", ratios(taken[name], taken["off"]), "×", target="P4",
                  limit=limit, note=note, **common)  # fmt: skip


def milliseconds(taken: Sequence[float]) -> str:
    spread = Spread.of([1e3 * seconds for seconds in taken])
    return f"{spread.p50:.4g} ms [{spread.p20:.4g}, {spread.p80:.4g}]"


def prefilling(
    model: Any, inputs: Any, profiled: Sequence[int], shape: dict[str, Any], rounds: int, device: str
) -> Iterator[Row]:
    """P5, P4 and P7 of the prompt's pass."""
    calls = memory.prefills(model, inputs)
    peaks = {name: memory.peak(call, device) for name, call in calls.items()}
    compared = {name: partial(reports.seconds, calls[name], device) for name in ("eager", "capture")}
    taken = alternate(compared, max(1, rounds // 2))
    yield from memory.rows(ratios(taken["eager"], taken["capture"]), peaks, shape, model.dtype, device)
    measures = {
        name: partial(reports.seconds, call, device) for name, call in passes(model, inputs, list(profiled)).items()
    }
    taken = alternate(measures, rounds)
    common = {"device": device, "dtype": model.dtype, "shape": shape}
    yield from on_and_off("prefill", taken, profiled, **common)
    yield stopped(taken, profiled, model.config.get_text_config().num_hidden_layers, **common)


if __name__ == "__main__":
    main()
