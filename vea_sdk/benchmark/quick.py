"""The short benchmark that ``vea bench`` runs: some seconds per device, no file needed, nothing downloaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from vea_sdk.benchmark import cuda
from vea_sdk.benchmark.kernels import Problem, Shape
from vea_sdk.benchmark.models import Decoder, generate, prompt, random_llava
from vea_sdk.benchmark.rows import Row, row
from vea_sdk.benchmark.timing import Spread, alternate, ratios, timer

STEPS = 3  # rows or groups of rows per device, for a progress bar

_EVERYDAY = Shape(batch=1, heads=28, kv_heads=4, keys=2048, dim=128)  # a prompt of Qwen2.5-VL-7B
_LARGE = {"cpu": Shape(4, 16, 8, 8192, 128), "cuda": Shape(32, 28, 4, 16384, 128)}  # keys beyond the caches
_DECODER = {"cpu": Decoder(4, 8, 2, 64, 1024), "cuda": Decoder(8, 16, 4, 128, 4096)}
_PROMPT = {"cpu": 1024, "cuda": 4096}

Timer = Callable[[Callable[[], object]], Callable[[], float]]


def measure(device: str, rounds: int = 9) -> Iterator[list[Row]]:
    """Rows for "cpu" or "cuda", group by group: kernel against torch, against memory, capture in a model."""
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    clock: Timer = timer if device == "cpu" else cuda.timer
    yield [_against_torch(device, dtype, clock, rounds)]
    yield [_against_memory(device, dtype, clock, rounds)]
    yield [_overhead(device, dtype, rounds)]


def _against_torch(device: str, dtype: torch.dtype, clock: Timer, rounds: int) -> Row:
    problem = Problem.random(_EVERYDAY, dtype, device)
    taken = alternate({"kernel": clock(problem.kernel), "torch": clock(problem.torch)}, rounds)
    note = f"kernel {1e6 * Spread.of(taken['kernel']).p50:.1f} µs, torch {1e6 * Spread.of(taken['torch']).p50:.1f} µs"
    return row(
        "capture kernel / torch matmul + softmax + mean",
        ratios(taken["kernel"], taken["torch"]),
        "×",
        device=device,
        dtype=dtype,
        shape=_EVERYDAY.as_dict(),
        target="P3" if device == "cpu" else None,
        limit=1.0 if device == "cpu" else None,
        note=note,
        reason="other programs took turns with it, or this processor has no vectors that the kernel knows",
    )


def _against_memory(device: str, dtype: torch.dtype, clock: Timer, rounds: int) -> Row:
    """How much of the time to read K once, by the device's own fastest way, the kernel needs."""
    shape = _LARGE[device]
    problem = Problem.random(shape, dtype, device)
    reading = torch.ones(shape.key_bytes(dtype) // 4).sum if device == "cpu" else cuda.copy(shape.key_bytes(dtype))
    taken = alternate({"read": clock(reading), "kernel": clock(problem.kernel)}, rounds)
    rate = shape.key_bytes(dtype) / 1e9 / Spread.of(taken["kernel"]).p50
    return row(
        "time to read as many bytes as the keys / capture kernel",
        ratios(taken["read"], taken["kernel"]),
        "of memory speed",
        device=device,
        dtype=dtype,
        shape=shape.as_dict(),
        target="P3" if device == "cpu" else "P1",
        limit=0.7 if device == "cpu" else 0.85,
        better="higher",
        note=f"{rate:.1f} GB of keys per second",
        reason="one sum reads a fast memory sooner than the kernel computes; more cores close the gap",
    )


def _overhead(device: str, dtype: torch.dtype, rounds: int) -> Row:
    decoder, tokens = _DECODER[device], _PROMPT[device]
    model = random_llava(decoder, dtype, device)
    inputs = prompt(model, tokens)
    measures = {
        "on": lambda: generate(model, inputs, 9, "all").total,
        "off": lambda: generate(model, inputs, 9).total,
    }
    taken = alternate(measures, rounds)
    return row(
        "generate() with capture of all layers / without",
        ratios(taken["on"], taken["off"]),
        "×",
        device=device,
        dtype=dtype,
        shape={**decoder.as_dict(), "prompt": tokens, "new": 9},
        target="P4",
        limit=1.05,
        reason="a short prompt and nine tokens: opening the session weighs more than in docs/benchmarks.md",
    )
