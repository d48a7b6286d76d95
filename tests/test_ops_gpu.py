"""The CUDA kernels against the float64 reference; skipped where no GPU can run them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from oracle import DTYPES, Rows, check_figures, make, numbers
from problems import cases, problems
from tolerances import ATTENTION, FLOOR

from vea_sdk import _native, ops
from vea_sdk.errors import InvalidInputError
from vea_sdk.ops.step_reader import step_reader

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU, or a torch without CUDA"),
    pytest.mark.skipif(_native.cuda_problem() is not None, reason=str(_native.cuda_problem())),
]


def on_gpu(value):
    return value.cuda() if isinstance(value, torch.Tensor) else value


def check(query, key, index, **options):
    expected = ops.reference.image_attention(query, key, index, per_head=True, **options)
    query, key, index = query.cuda(), key.cuda(), index.cuda()
    options = {name: on_gpu(value) for name, value in options.items()}
    heads = ops.image_attention(query, key, index, per_head=True, **options).cpu()
    mean = ops.image_attention(query, key, index, **options).cpu()
    torch.testing.assert_close(heads, expected, rtol=0, atol=ATTENTION, equal_nan=True)
    torch.testing.assert_close(mean, expected.mean(1), rtol=0, atol=ATTENTION, equal_nan=True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("keys", [1, 3, 17, 111, 989, 5000, 40000])
def test_every_length(dtype, keys):
    check(*make(2, 4, 2, 3, keys, 32, 17, dtype, seed=keys))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", [1, 3, 17, 32, 64, 72, 80, 96, 111, 128, 136, 192, 256, 320])
@pytest.mark.parametrize("group", [1, 3, 7, 17])
def test_every_head_dimension_and_group(dtype, dim, group):
    check(*make(1, 2 * group, 2, 1, 300, dim, 40, dtype, seed=dim))


@pytest.mark.parametrize("dtype", DTYPES)
def test_options_together_and_apart(dtype):
    query, key, index = make(3, 4, 2, 5, 300, 16, 40, dtype)
    g = torch.Generator().manual_seed(2)
    visible = torch.rand(3, 1, 5, 310, generator=g) < 0.6
    options = {
        "query_index": torch.tensor([0, 4, 2]),
        "key_start": torch.tensor([0, 3, 299]),
        "key_stop": torch.tensor([300, 3, 999]),
        "mask": torch.where(visible, 0.0, torch.finfo(dtype).min).to(dtype),
        "position_bias": torch.randn(1, 4, 5, 300, generator=g).to(dtype),
        "sinks": torch.randn(4, generator=g).to(dtype),
        "softcap": 2.0,
        "window": 90,
        "scale": 0.7,
    }
    for name, value in options.items():
        check(query, key, index, **{name: value})
    check(query, key, index, **options)
    check(query, key, index, mask=visible)


def test_strides_nan_and_bad_indices():
    query, key, index = make(2, 4, 2, 1, 300, 24, 17)
    check(query.transpose(1, 2).contiguous().transpose(1, 2), key.transpose(1, 2).contiguous().transpose(1, 2), index)
    check(query, key[:, :, 1::2], index % 150)
    key[0, 1, 270] = torch.nan
    check(query, key, index)
    index[1, 0] = 300
    scores = ops.image_attention(query.cuda(), key.cuda(), index.cuda()).cpu()
    assert scores[1].isnan().tolist() == [True] + [False] * 16
    row = torch.tensor([0, 1]).cuda()
    scores = ops.image_attention(query.cuda(), key.cuda(), index.cuda(), row).cpu()
    assert scores[1, index[1] >= 0].isnan().all()


def test_out_and_topk():
    query, key, index = (t.cuda() for t in make(3, 4, 2, 1, 989, 64, 500))
    out = torch.ones(3, 600, device="cuda")
    scores = ops.image_attention(query, key, index)
    result, chosen = ops.image_attention(query, key, index, out=out[:, 50:550], weight=0.25, top_k=37)
    torch.testing.assert_close(result, 1 + 0.25 * scores, rtol=1e-6, atol=0)
    assert (out[:, :50] == 1).all()
    assert (out[:, 550:] == 1).all()
    assert torch.equal(chosen.cpu(), ops.reference.topk_mask(result.cpu().masked_fill(index.cpu() < 0, torch.nan), 37))


@pytest.mark.parametrize("tokens", [1, 3, 17, 111, 989, 30000])
def test_topk_mask(tokens):
    scores = torch.randn(5, tokens, generator=torch.Generator().manual_seed(4)).mul(3).round()
    scores[0, ::2] = torch.nan
    scores[1] = 0
    for k in {0, 1, tokens // 2, tokens - 1, tokens}:
        assert torch.equal(ops.topk_mask(scores.cuda(), k).cpu(), ops.reference.topk_mask(scores, k))


def test_cuda_graph_replay_and_streams():
    inputs = [t.cuda() for t in make(2, 28, 4, 1, 2000, 128, 900, torch.bfloat16)]
    out = torch.zeros(2, 900, device="cuda")
    expected = ops.image_attention(*inputs)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        scores = ops.image_attention(*inputs)
        ops.image_attention(*inputs, out=out, weight=0.5)
    for _ in range(3):
        graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(scores, expected)
    torch.testing.assert_close(out, 1.5 * expected)
    inputs[0].neg_()
    graph.replay()
    assert torch.equal(scores, ops.image_attention(*inputs))
    streams = [torch.cuda.Stream() for _ in range(4)]
    results = []
    torch.cuda.synchronize()
    for _ in range(10):
        for stream in streams:
            with torch.cuda.stream(stream):
                results.append(ops.image_attention(*inputs))
    torch.cuda.synchronize()
    assert all(torch.equal(result, scores) for result in results)


@settings(max_examples=cases(500), suppress_health_check=list(HealthCheck))
@given(problems())
def test_drawn_calls(p):
    """The space of test_ops_properties.py, with its strides."""
    before = None if p.out is None else numbers(p.out)
    heads = Rows(p.query, p.key, p.query_index, **p.options).at(p.image_index)
    truth = p.weight * (heads if p.per_head else heads.mean(1)) + (0 if before is None else before)
    scores, chosen = p.to("cuda").call(ops.image_attention)
    rounding = 0 if before is None else FLOOR * np.abs(before).max(initial=0)
    np.testing.assert_allclose(numbers(scores), truth, rtol=0, atol=ATTENTION + rounding, equal_nan=True)
    if chosen is not None:
        eligible = torch.where(p.image_index >= 0, scores.cpu().mean(1) if p.per_head else scores.cpu(), torch.nan)
        assert torch.equal(chosen.sum(1).cpu(), (~eligible.isnan()).sum(1).clamp(max=p.top_k))
        if not p.per_head:  # the mean over heads rounds
            assert torch.equal(chosen.cpu(), ops.reference.topk_mask(eligible, p.top_k))


def test_calls_never_wait_for_the_gpu():
    inputs = [t.cuda() for t in make(2, 28, 4, 1, 2000, 128, 900, torch.bfloat16)]
    out = torch.zeros(2, 900, device="cuda")
    ops.image_attention(*inputs)  # makes what the stream keeps from call to call
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        ops.image_attention(*inputs, out=out, top_k=50)
        ops.image_attention(*inputs, per_head=True, key_stop=torch.full((2,), 1500, device="cuda"))
        ops.topk_mask(out, 50)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_replay_of_a_graph_allocates_nothing_and_sees_new_inputs():
    query, key, index = (t.cuda() for t in make(2, 28, 4, 1, 2000, 128, 900, torch.bfloat16))
    ops.image_attention(query, key, index)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        scores, chosen = ops.image_attention(query, key, index, top_k=50)
    torch.cuda.synchronize()
    for seed in range(3):
        for tensor, new in zip(
            (query, key, index), make(2, 28, 4, 1, 2000, 128, 900, torch.bfloat16, seed), strict=True
        ):
            tensor.copy_(new.pin_memory(), non_blocking=True)
        allocated = torch.cuda.memory_stats()["allocation.all.allocated"]
        graph.replay()
        assert torch.cuda.memory_stats()["allocation.all.allocated"] == allocated
        torch.cuda.synchronize()
        expected, best = ops.image_attention(query, key, index, top_k=50)
        assert torch.equal(scores, expected)
        assert torch.equal(chosen, best)


def test_two_streams_at_once():
    inputs = [[t.cuda() for t in make(2, 28, 4, 1, 4000, 128, 900, torch.bfloat16, seed=i)] for i in range(2)]
    expected = [ops.image_attention(*i, top_k=50) for i in inputs]
    streams = [torch.cuda.Stream() for _ in inputs]
    torch.cuda.synchronize()
    found = []
    for turn in range(40):
        with torch.cuda.stream(streams[turn % 2]):
            found.append(ops.image_attention(*inputs[turn % 2], top_k=50))
    torch.cuda.synchronize()
    for turn, pair in enumerate(found):
        assert all(torch.equal(a, b) for a, b in zip(pair, expected[turn % 2], strict=True))


def test_refusals_leave_the_device_alone():
    query, key, index = (t.cuda() for t in make(1, 4, 2, 1, 17, 16, 5))
    with pytest.raises(InvalidInputError, match="key is on cpu"):
        ops.image_attention(query, key.cpu(), index)
    assert not ops.image_attention(query, key, index).isnan().any()  # the device still works


def decoding(rows=3, keys=2000, dtype=torch.bfloat16, device="cuda", seed=0):
    """A step of Qwen2.5-VL-7B's shape: query, key, image_index, and buffers for some rows."""
    inputs = [t.to(device) for t in make(2, 28, 4, 1, keys, 128, 900, dtype, seed)]
    buffers = [torch.full((rows, 2, width), 7.0, device=device) for width in (900, 4)]
    return *inputs, *buffers


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("keys", [1, 17, 989, 5000])
def test_steps_of_decoding(dtype, keys):
    query, key, index, scores, stats = decoding(3, keys, dtype)
    assert step_reader(index, scores, stats)(1, query, key, 0.1, keys)
    expected = ops.image_attention(query, key, index, scale=0.1, stats=(figures := torch.empty(2, 4, device="cuda")))
    assert torch.equal(scores[1], expected)
    assert torch.equal(stats[1].nan_to_num(), figures.nan_to_num())
    truth = Rows(query, key)
    assert step_reader(index, scores, stats)(2, query, key, None, keys)
    np.testing.assert_allclose(numbers(scores[2]), truth.at(index).mean(1), rtol=0, atol=ATTENTION)
    check_figures(stats[2], truth.figures(index))
    assert all((buffer[0] == 7).all() for buffer in (scores, stats))


def test_what_a_step_leaves_to_image_attention():
    query, key, index, scores, stats = decoding()
    read = step_reader(index, scores, stats)
    for row, one, other, kept in (
        (3, query, key, 0),
        (0, query, key, 2001),
        (0, query.float(), key, 0),
        (0, query[:1], key[:1], 0),
        (0, query.expand(2, 28, 3, 128), key, 0),
        (0, query.repeat(1, 40, 1, 1), key, 0),
        (0, query.repeat(1, 1, 1, 3), key.repeat(1, 1, 1, 3), 0),
        (0, query.cpu(), key, 0),
        (0, query, torch.nn.Parameter(key), 0),
    ):
        assert not read(row, one, other, None, kept)
    torch.cuda.synchronize()
    assert all((buffer == 7).all() for buffer in (scores, stats))
    assert read(0, query, key[:, :, :1000], None, 0)
    assert torch.equal(scores[0].isnan(), index >= 1000)
    with pytest.raises(InvalidInputError, match="image_index is on cpu"):
        step_reader(index.cpu(), scores, stats)


def test_steps_never_wait_for_the_gpu():
    query, key, index, scores, stats = decoding()
    read = step_reader(index, scores, stats)
    read(0, query, key, None, 0)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        assert read(1, query, key, None, 0)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_steps_on_streams_that_run_at_once():
    problems = [decoding(40, keys=4000, seed=i) for i in range(2)]
    expected = [ops.image_attention(*problem[:3], scale=0.1) for problem in problems]
    readers = [step_reader(*problem[2:]) for problem in problems]
    streams = [torch.cuda.Stream() for _ in range(4)]
    torch.cuda.synchronize()
    for row in range(40):
        for i, (read, problem) in enumerate(zip(readers, problems, strict=True)):
            with torch.cuda.stream(streams[(row + 2 * i) % 4]):
                assert read(row, *problem[:2], 0.1, 0)
    torch.cuda.synchronize()
    for problem, one in zip(problems, expected, strict=True):
        assert torch.equal(problem[3], one.expand_as(problem[3]))


def test_a_replayed_step_writes_its_row_again():
    query, key, index, scores, stats = decoding()
    read = step_reader(index, scores, stats)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # what the reader might keep from here must not end up in the graph
        read(0, query, key, 0.1, 0)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=side):
        assert read(1, query, key, 0.1, 0)
    del read
    for seed in range(3):
        for tensor, new in zip((query, key), make(2, 28, 4, 1, 2000, 128, 900, torch.bfloat16, seed)[:2], strict=True):
            tensor.copy_(new)
        graph.replay()
        assert torch.equal(scores[1], ops.image_attention(query, key, index, scale=0.1))
    assert (scores[2] == 7).all()


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_a_step_runs_where_its_buffers_are():
    query, key, index, scores, stats = decoding(device="cuda:1")
    read = step_reader(index, scores, stats)
    assert torch.cuda.current_device() == 0
    assert read(0, query, key, 0.1, 0)
    assert torch.cuda.current_device() == 0
    assert torch.equal(scores[0], ops.image_attention(query, key, index, scale=0.1))
    with torch.cuda.device(1):
        assert read(1, query, key, 0.1, 0)
    torch.cuda.synchronize(1)
    assert torch.equal(scores[1], scores[0])
    assert not read(2, query.to("cuda:0"), key.to("cuda:0"), 0.1, 0)
