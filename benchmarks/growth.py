"""P8: how the kernel's time grows: with Lk, with B, not with Lq, and so not with N².

    python benchmarks/growth.py

All key tensors lie beyond the last-level cache, so that one regime is fitted. The exponent e of time ∝ size^e is the
slope of a line through the logarithms of the medians.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Sequence

import reports
import torch

from vea_sdk.benchmark import Row, Spread, alternate, ratios, row, timer
from vea_sdk.benchmark.kernels import Problem, Shape

LENGTHS = (16384, 32768, 65536, 131072)  # 67 to 537 MB of keys
BATCHES = (4, 8, 16, 32)
QUERIES = (1, 512, 2048)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=11)
    reports.add_arguments(parser)
    options = parser.parse_args()
    rows = [
        exponent("Lk", LENGTHS, [Shape(1, 16, 8, keys, 128) for keys in LENGTHS], options.rounds),
        exponent("B", BATCHES, [Shape(batch, 16, 8, 4096, 128) for batch in BATCHES], options.rounds),
        exponent("N = Lq = Lk", (8192, 16384, 32768, 65536), None, options.rounds),
        *queries(Shape(1, 16, 8, 16384, 128), options.rounds),
    ]
    reports.finish(rows, "growth", options)


def exponent(name: str, sizes: Sequence[int], shapes: Sequence[Shape] | None, rounds: int) -> Row:
    """e of time ∝ size^e, one fit per round."""
    if shapes is None:  # a prefill of growing length: as many queries as keys
        problems = [Problem.random(Shape(1, 16, 16, n, 128), torch.float32, queries=n) for n in sizes]
        what, first = "a prefill's length", problems[0]
    else:
        problems = [Problem.random(shape, torch.float32) for shape in shapes]
        what, first = name, problems[0]
    taken = alternate({str(n): timer(p.kernel) for n, p in zip(sizes, problems, strict=True)}, rounds)
    slopes = [slope(sizes, [taken[str(n)][i] for n in sizes]) for i in range(rounds)]
    batch, heads, _, dim = first.query.shape
    fixed = {"B": batch, "Hq": heads, "Hkv": first.key.shape[1], "Lk": first.key.shape[2], "D": dim}
    shape = {**fixed, **dict.fromkeys(name.split(" = ")[-1:], ", ".join(map(str, sizes)))}
    medians = ", ".join(f"{1e3 * Spread.of(taken[str(n)]).p50:.2f} ms" for n in sizes)
    return row(
        f"exponent of growth with {what}",
        Spread.of(slopes),
        "",
        target="P8",
        limit=1.1,
        shape=shape,
        dtype=torch.float32,
        note=f"medians {medians}",
    )


def slope(sizes: Sequence[int], times: Sequence[float]) -> float:
    """Least squares through (log size, log time)."""
    return statistics.linear_regression([math.log(n) for n in sizes], [math.log(t) for t in times]).slope


def queries(shape: Shape, rounds: int) -> list[Row]:
    """Time with many query rows at hand over time with one: one row is read either way."""
    problems = {n: Problem.random(shape, torch.float32, queries=n) for n in QUERIES}
    taken = alternate({str(n): timer(p.kernel) for n, p in problems.items()}, rounds)
    return [
        row(
            f"time at Lq = {n} / at Lq = 1",
            ratios(taken[str(n)], taken["1"]),
            "×",
            target="P8",
            limit=1.1,
            shape={**shape.as_dict(), "Lq": n},
            dtype=torch.float32,
        )
        for n in QUERIES[1:]
    ]


if __name__ == "__main__":
    main()
