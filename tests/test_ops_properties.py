"""The operators over drawn calls, against float64. The same cases on every run; conftest.py names the profile for new
ones. Each call runs on one and on two threads, and some again on the slower instruction sets."""

from __future__ import annotations

import collections
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracle import Rows, check_figures, numbers
from problems import Problem, cases, layouts, problems
from tolerances import ATTENTION, ATTENTION_FACTOR, FLOOR, SCORE_SHARE, TOPK_BAND

from vea_sdk import _native, ops
from vea_sdk.ops import plain
from vea_sdk.ops.arguments import Arguments

CALLS = 2000  # different ones, of image_attention, at the least; about a third of what hypothesis draws repeats
PATHS = ("avx512_bf16", "avx512", "avx2", "portable")
MARK = "drawn calls:"

drawn: collections.Counter[str] = collections.Counter()  # how often each problem came
draws = settings(
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]
)


def on_threads(n, call):
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        return call()
    finally:
        torch.set_num_threads(before)


def identical(a: torch.Tensor, b: torch.Tensor) -> bool:
    return np.array_equal(a.numpy(), b.numpy(), equal_nan=a.is_floating_point())


def in_float32(p: Problem) -> torch.Tensor:
    """The same formula in plain torch."""
    scale = p.options.get("scale", p.query.shape[-1] ** -0.5)
    names = ("key_start", "key_stop", "mask", "softcap", "window", "sinks", "position_bias")
    rest = [p.options.get(name) for name in names]
    return plain.image_attention(
        Arguments(*p.tensors(), scale, *rest, p.weight, None, p.per_head), None, torch.float32
    )[0]


def largest(errors: np.ndarray) -> float:
    return np.nan_to_num(np.abs(errors)).max(initial=0)


def check_scores(p: Problem, scores: torch.Tensor) -> None:
    """NaN where the truth is, as close to it as float32 and plain torch demand."""
    rows = Rows(p.query, p.key, p.query_index, **p.options)
    heads = rows.at(p.image_index)
    truth = p.weight * (heads if p.per_head else heads.mean(1))
    alone, reference = in_float32(p), replace(p, out=None, top_k=None).call(ops.reference.image_attention)[0]
    for found in (scores, alone, reference):
        assert np.array_equal(np.isnan(numbers(found)), np.isnan(truth))
    before = 0.0 if p.out is None else numbers(p.out)
    rounding = FLOOR * np.abs(before).max(initial=0) if p.out is not None else 0.0  # of the sum in `out`
    error = largest(numbers(scores) - before - truth) - rounding
    floor = FLOOR * (1 + SCORE_SHARE * rows.largest_logit)
    assert error <= max(ATTENTION_FACTOR * largest(numbers(alone) - truth), floor)
    if p.query.dtype == torch.float32:
        assert error <= ATTENTION
    assert largest(numbers(reference) - truth) <= FLOOR


def check_choice(scores: np.ndarray, eligible: np.ndarray, k: int, chosen: np.ndarray, band: float) -> None:
    """The k best eligible numbers, ties to the lower index; scores closer than ``band`` may swap."""
    for row, allowed, mask in zip(scores, eligible & ~np.isnan(scores), chosen, strict=True):
        best = sorted(np.flatnonzero(allowed), key=lambda i: (-row[i], i))[:k]
        assert mask.sum() == len(best)
        assert not mask[~allowed].any()
        if band == 0:
            assert np.array_equal(np.flatnonzero(mask), sorted(best))
        elif mask.any():
            assert row[mask].min() >= row[best].min() - band


def check_out(p: Problem, call) -> tuple[torch.Tensor, torch.Tensor | None]:
    """``call`` writes to ``out`` alone, not between its rows, and returns it."""
    memory = torch.tensor([], dtype=torch.float32).set_(p.out.untyped_storage())
    before, between = memory.clone(), torch.ones(len(memory), dtype=torch.bool)
    between.as_strided(p.out.shape, p.out.stride(), p.out.storage_offset()).fill_(False)
    scores, chosen = call()
    assert scores is p.out
    assert identical(memory[between], before[between])
    scores = scores.clone()
    memory.copy_(before)
    return scores, chosen


@settings(draws, max_examples=cases(3400))
@given(problems())
def test_drawn_calls(p):
    stats = torch.full((len(p.query), 4), 7.0)

    def call():
        run = partial(p.call, ops.image_attention, stats)
        return run() if p.out is None else check_out(p, run)

    scores, chosen = on_threads(1, call)
    figures = stats.clone()
    again, chosen_again = on_threads(2, call)
    assert identical(scores, again)
    assert identical(figures, stats)
    check_scores(p, scores)
    check_figures(stats, Rows(p.query, p.key, p.query_index, **p.options).figures(p.image_index))
    if chosen is not None:
        assert identical(chosen, chosen_again)
        mean = numbers(scores).mean(1) if p.per_head else numbers(scores)
        band = TOPK_BAND if p.per_head else 0  # the mean over heads rounds
        check_choice(mean, p.image_index.numpy() >= 0, p.top_k, chosen.numpy(), band)
    drawn[repr(p) + str(p.query.sum().item())] += 1


@settings(draws, max_examples=cases(300))
@given(st.data())
def test_drawn_masks(data):
    shape = data.draw(st.sampled_from([0, 1, 3])), data.draw(st.sampled_from([1, 3, 17, 111, 989]))
    g = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
    scores = torch.randn(shape, generator=g).mul(data.draw(st.sampled_from([0, 1, 30]))).round()
    for value in (torch.nan, torch.inf, -torch.inf, -0.0):
        scores[torch.rand(shape, generator=g) < data.draw(st.sampled_from([0, 0.1, 0.9]))] = value
    dtype = data.draw(st.sampled_from([torch.float32, torch.float16, torch.bfloat16]))
    scores, k = data.draw(layouts(scores.to(dtype))), data.draw(st.integers(0, shape[1]))
    for operator in (ops.topk_mask, ops.reference.topk_mask):
        check_choice(numbers(scores), np.ones(shape, dtype=bool), k, operator(scores, k).numpy(), band=0)


@settings(draws, max_examples=cases(25))
@given(st.lists(problems(), min_size=4, max_size=4))
def test_drawn_calls_from_many_threads(several):
    several = [replace(p, out=None, top_k=None) for p in several]
    expected = [p.call(ops.image_attention)[0] for p in several]
    with ThreadPoolExecutor(4) as pool:
        found = on_threads(2, lambda: list(pool.map(lambda p: p.call(ops.image_attention)[0], several * 3)))
    assert all(identical(a, b) for a, b in zip(found, expected * 3, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS[1:])
def test_drawn_calls_on_slower_instruction_sets(path):
    fastest = _native.build_info()["cpu_path"]
    if fastest is None or PATHS.index(path) <= PATHS.index(fastest):
        pytest.skip(f"{path} is no slower path here: the processor's own is {fastest}")
    test = f"{Path(__file__)}::{test_drawn_calls.__name__}"
    options = ["-q", "-s", "-p", "no:cacheprovider", "--hypothesis-profile=share"]
    environment = {**os.environ, "VEA_CPU_PATH": path}
    # -P: not the checkout's own package, which holds no kernels where another one is installed.
    done = subprocess.run(
        [sys.executable, "-P", "-m", "pytest", *options, test], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr
    assert f"on {path}" in done.stdout


@pytest.fixture(autouse=True, scope="module")
def report():
    yield
    print(f"\n{MARK} {drawn.total()}, {len(drawn)} of them different, on {_native.build_info()['cpu_path']}")


def test_enough_calls_were_drawn():
    if not drawn:
        pytest.skip("the drawn calls were not selected")
    assert len(drawn) >= cases(CALLS)
