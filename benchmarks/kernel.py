"""P3: the CPU capture kernel against its roofline, against plain torch at every size, against SDPA; and the top-k.

python benchmarks/kernel.py
"""

from __future__ import annotations

import argparse

import ceilings
import reports
import torch
from shapes import BEYOND_CACHE, DTYPES, EVERY_SIZE
from torch import Tensor

from vea_sdk import ops
from vea_sdk.benchmark import Row, Spread, alternate, ratios, row, timer
from vea_sdk.benchmark.kernels import Problem, Shape


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    reports.add_arguments(parser)
    options = parser.parse_args()
    cases = [(shape, dtype) for dtype in DTYPES for shape in EVERY_SIZE]
    large = [(shape, dtype) for dtype in DTYPES for shape in BEYOND_CACHE]
    rows: list[Row] = []
    with reports.progress(len(cases) + len(large) + 1) as tick:
        for shape, dtype in large:
            rows += roofline(shape, dtype, options.rounds)
            tick()
        for shape, dtype in cases:
            rows.append(against_torch(shape, dtype, options.rounds))
            tick()
        rows += [top_k(batch, tokens, options.rounds) for batch, tokens in ((1, 64), (1, 1296), (32, 1296), (1, 65536))]
        tick()
    reports.finish(rows, "kernel", options)


def roofline(shape: Shape, dtype: torch.dtype, rounds: int) -> list[Row]:
    """The larger of (reading K) and (doing its multiply-adds) over the kernel's time; then SDPA and torch."""
    problem = Problem.random(shape, dtype)
    reading, computing = ceilings.read(problem.key), ceilings.multiply_add(shape.operations)
    calls = {"kernel": problem.kernel, "read": reading, "compute": computing, "sdpa": problem.sdpa}
    taken = alternate({name: timer(call) for name, call in calls.items()}, rounds)
    bounds = [max(pair) for pair in zip(taken["read"], taken["compute"], strict=True)]
    read, compute = (Spread.of(taken[name]).p50 for name in ("read", "compute"))
    megabytes = shape.key_bytes(dtype) / 1e6
    note = (
        f"bound by {'reading' if read >= compute else 'multiply-adds'}: {megabytes:.0f} MB of keys read in "
        f"{1e3 * read:.1f} ms ({megabytes / 1e3 / read:.1f} GB/s), {shape.operations / 1e9:.2f} GFLOP done in "
        f"{1e3 * compute:.1f} ms; the kernel takes {1e3 * Spread.of(taken['kernel']).p50:.1f} ms"
    )
    common = {"target": "P3", "shape": shape.as_dict(), "dtype": dtype}
    return [
        row("roofline / capture kernel", ratios(bounds, taken["kernel"]), "of its roofline",
            limit=0.7, better="higher", note=note, **common),
        row("capture kernel / SDPA's step for the layer", ratios(taken["kernel"], taken["sdpa"]), "×", **common),
    ]  # fmt: skip


def against_torch(shape: Shape, dtype: torch.dtype, rounds: int) -> Row:
    """The kernel against matmul, softmax, mean and gather of torch in the same dtype."""
    problem = Problem.random(shape, dtype)
    taken = alternate({"kernel": timer(problem.kernel), "torch": timer(problem.torch)}, rounds)
    note = f"kernel {1e6 * Spread.of(taken['kernel']).p50:.1f} µs, torch {1e6 * Spread.of(taken['torch']).p50:.1f} µs"
    return row(
        "capture kernel / torch matmul + softmax + mean",
        ratios(taken["kernel"], taken["torch"]),
        "×",
        target="P3",
        limit=1.0,
        shape=shape.as_dict(),
        dtype=dtype,
        note=note,
    )


def top_k(batch: int, tokens: int, rounds: int) -> Row:
    """``topk_mask`` against torch.topk and scatter, k = M/10."""
    k = max(1, tokens // 10)
    scores = torch.rand(batch, tokens, generator=torch.Generator().manual_seed(0))

    def with_torch() -> Tensor:
        return torch.zeros_like(scores, dtype=torch.bool).scatter_(-1, scores.topk(k).indices, True)

    assert torch.equal(with_torch(), ops.topk_mask(scores, k))
    taken = alternate({"kernel": timer(lambda: ops.topk_mask(scores, k)), "torch": timer(with_torch)}, rounds)
    spread = ratios(taken["kernel"], taken["torch"])
    shape = {"B": batch, "M": tokens, "k": k}
    return row("top-k mask / torch topk + scatter", spread, "×", shape=shape, dtype=torch.float32)


if __name__ == "__main__":
    main()
