"""Absolute times of the single operations, for comparing two states of the code on one machine:

    pytest benchmarks/test_micro.py --benchmark-save=before
    pytest benchmarks/test_micro.py --benchmark-compare

The figures of the documentation are ratios and come from the scripts beside this file.
"""

from __future__ import annotations

import ceilings
import numpy as np
import pytest
import torch
from shapes import BEYOND_CACHE, DTYPES, QWEN

from vea_sdk import evidence, ops
from vea_sdk.benchmark.kernels import Problem, Shape

SHAPES = [Shape(1, *QWEN[:2], keys, QWEN[2]) for keys in (64, 1300, 16384)] + [BEYOND_CACHE[0]]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape.batch}x{shape.keys}")
@pytest.mark.parametrize("call", ["kernel", "torch", "sdpa"])
def test_attention(benchmark, call, shape, dtype):
    benchmark.group = f"attention of one query, {shape.batch}x{shape.keys} keys, {dtype}"
    benchmark(getattr(Problem.random(shape, dtype), call))


def test_reading(benchmark):
    benchmark.extra_info["bytes"] = 1 << 28
    benchmark(ceilings.read(torch.ones(1 << 26)))


@pytest.mark.parametrize("tokens", [64, 1296, 65536])
def test_topk(benchmark, tokens):
    benchmark(ops.topk_mask, torch.rand(1, tokens), tokens // 10)


@pytest.mark.parametrize("size", [(504, 504), (756, 1008)], ids=str)
def test_evidence(benchmark, size):
    random = np.random.default_rng(0)
    scores = random.random((27, 36), dtype=np.float32)
    picture = random.integers(0, 256, (*size, 3), dtype=np.uint8)
    benchmark(lambda: evidence.highlight(picture, evidence.build_map(scores, (27, 36), size)))
