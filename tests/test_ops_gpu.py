"""The CUDA kernels against the float64 reference; skipped where no GPU can run them."""

from __future__ import annotations

import pytest
import torch
from oracle import DTYPES, make
from tolerances import ATTENTION

from vea_sdk import _native, ops

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
