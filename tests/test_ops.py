"""The operators against float64 numpy, written here a second time from the formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oracle import DTYPES, Rows, check_figures, make, numbers, oracle
from tolerances import ATTENTION, ATTENTION_FACTOR, FLOOR

from vea_sdk import ops
from vea_sdk.ops import plain
from vea_sdk.ops.arguments import Arguments


def check(query, key, image_index, query_index=None, **options):
    rows = Rows(query, key, query_index, **options)
    expected, figures = rows.at(image_index), rows.figures(image_index)
    found = {}
    for per_head, truth in ((True, expected), (False, expected.mean(1))):
        for operator in (ops.image_attention, ops.reference.image_attention):
            stats = torch.full((len(query), 4), 7.0)
            scores = operator(query, key, image_index, query_index, per_head=per_head, stats=stats, **options)
            assert scores.dtype == torch.float32
            np.testing.assert_allclose(numbers(scores), truth, rtol=0, atol=ATTENTION, equal_nan=True)
            check_figures(stats, figures)
            found[operator] = scores
    return found[ops.image_attention]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("keys", [1, 3, 17, 111, 255, 256, 257, 511, 512, 513, 989])
def test_every_length(dtype, keys):
    check(*make(2, 4, 2, 3, keys, 32, 17, dtype, seed=keys))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", [1, 3, 16, 17, 64, 72, 80, 96, 111, 128, 256, 512])
def test_every_head_dimension(dtype, dim):
    check(*make(1, 6, 2, 1, 111, dim, 17, dtype, seed=dim))


@pytest.mark.parametrize(("heads", "kv_heads"), [(1, 1), (8, 8), (7, 1), (28, 4), (12, 4), (71, 1), (5, 5)])
def test_grouped_heads(heads, kv_heads):
    check(*make(2, heads, kv_heads, 1, 300, 24, 40))


@pytest.mark.parametrize("tokens", [0, 1, 3, 17, 111, 989])
@pytest.mark.parametrize("index", [torch.int32, torch.int64])
def test_every_number_of_tokens(tokens, index):
    assert check(*make(2, 4, 2, 1, 111, 16, tokens, index=index)).shape == (2, tokens)


def test_empty_batch():
    query, key, index = make(0, 4, 2, 1, 17, 16, 3)
    assert ops.image_attention(query, key, index).shape == (0, 3)
    scores, chosen = ops.image_attention(query, key, index, top_k=2, per_head=True)
    assert scores.shape == (0, 4, 3)
    assert chosen.shape == (0, 3)


@pytest.mark.parametrize("dtype", DTYPES)
def test_strides_as_models_make_them(dtype):
    """Heads behind positions (before the transpose), a static cache that is longer, fused q and k, every second key."""
    g = torch.Generator().manual_seed(1)
    fused = torch.randn(2, 111, 6, 2 * 24, generator=g).to(dtype)
    query, key = fused[..., :24].transpose(1, 2), fused[..., 24:].transpose(1, 2)
    index = torch.randint(0, 50, (2, 2 * 17), generator=g)[:, ::2]
    check(query, key[:, ::3], index)
    cache = torch.full((2, 2, 300, 24), torch.nan, dtype=dtype)
    cache[:, :, :111] = key[:, :2]
    stop = torch.tensor([111, 60])
    check(query, cache, index, key_stop=stop)
    check(query, key[:, :, ::2], index)
    check(query.transpose(2, 3).contiguous().transpose(2, 3), key, index)


@pytest.mark.parametrize("dtype", DTYPES)
def test_each_option(dtype):
    query, key, index = make(3, 4, 2, 5, 300, 16, 40, dtype)
    g = torch.Generator().manual_seed(2)
    visible = torch.rand(3, 1, 5, 310, generator=g) < 0.6
    options = [
        {"scale": 0.7},
        {"softcap": 0.5},
        {"softcap": 50.0},
        {"window": 7},
        {"window": 1000},
        {"window": 2**40, "key_stop": torch.tensor([300, 5, 9], dtype=torch.int32)},
        {"sinks": torch.randn(4, generator=g).to(dtype)},
        {"key_start": torch.tensor([0, 3, 299]), "key_stop": torch.tensor([300, 5, 999])},
        {"key_start": torch.tensor([0, 3, 200]), "window": 60},
        {"mask": visible},
        {"mask": visible[:1, :, :1]},
        {"mask": torch.rand(1, 4, 1, 300, generator=g) < 0.5},
        {"mask": torch.where(visible, 0.0, torch.finfo(dtype).min).to(dtype)},
        {"mask": torch.where(visible, torch.randn(3, 1, 5, 310, generator=g), -torch.inf).to(dtype)},
        {"position_bias": torch.randn(1, 4, 5, 300, generator=g).to(dtype)},
        {"position_bias": torch.randn(3, 1, 1, 300, generator=g).to(dtype), "mask": visible},
    ]
    for option in options:
        check(query, key, index, **option)
        check(query, key, index, torch.tensor([0, 4, 2]), **option)
    together = {name: value for option in options for name, value in option.items()}
    check(query, key, index, torch.tensor([3, 1, 2], dtype=torch.int32), **together)


def test_nothing_to_see_is_nan():
    query, key, index = make(2, 4, 2, 1, 17, 16, 5)
    index[:, 2] = -1
    for option in (
        {"key_stop": torch.tensor([0, 17])},
        {"key_start": torch.tensor([17, 0])},
        {"mask": torch.tensor([False, True])[:, None, None, None].expand(2, 1, 1, 17)},
        {"mask": torch.tensor([-torch.inf, 0.0])[:, None, None, None].expand(2, 1, 1, 17)},
    ):
        scores = check(query, key, index, **option)
        assert scores[0].isnan().tolist() == [i >= 0 for i in index[0].tolist()]
        assert not scores[1].isnan().any()
        assert scores[0, 2] == 0
        assert not check(query, key, index, sinks=torch.zeros(4), **option).isnan().any()


def test_nan_spreads_only_from_visible_keys():
    query, key, index = make(2, 4, 2, 1, 300, 16, 5)
    key[0, 0, 270] = torch.nan
    index[0, 0] = -1
    scores = ops.image_attention(query, key, index)
    assert scores[0, 0] == 0
    assert scores[0, 1:].isnan().all()
    assert not scores[1].isnan().any()
    visible = torch.ones(1, 1, 1, 300, dtype=torch.bool)
    visible[..., 270] = False
    for mask in (visible, torch.where(visible, 0.0, -torch.inf)):
        hidden = ops.image_attention(query, key, index, mask=mask)
        assert not hidden.isnan().any()
        clean = key.clone()
        clean[0, 0, 270] = 0
        assert torch.equal(hidden, ops.image_attention(query, clean, index, mask=mask))


def test_overflow_is_nan_not_silence():
    query, key, index = make(1, 1, 1, 1, 17, 16, 5)
    key[0, 0, 3] = torch.inf * query[0, 0, 0].sign()
    assert ops.image_attention(query, key, index.clamp(min=0)).isnan().all()


@pytest.mark.parametrize("per_head", [False, True])
def test_accumulates_into_strided_rows(per_head):
    query, key, index = make(2, 4, 2, 1, 111, 16, 17)
    shape = (2, 4, 40) if per_head else (2, 40)
    room = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    before = room.clone()
    out = room[..., 5:22]
    scores = ops.image_attention(query, key, index, per_head=per_head)
    result = ops.image_attention(query, key, index, out=out, weight=0.25, per_head=per_head)
    assert result is out
    torch.testing.assert_close(out, before[..., 5:22] + 0.25 * scores, rtol=1e-6, atol=1e-7)
    assert torch.equal(room[..., :5], before[..., :5])
    assert torch.equal(room[..., 22:], before[..., 22:])
    weighted = ops.image_attention(query, key, index, weight=0.25, per_head=per_head)
    torch.testing.assert_close(weighted, 0.25 * scores, rtol=1e-6, atol=0)


def test_topk_ties_nan_and_padding():
    inf, nan = torch.inf, torch.nan
    scores = torch.tensor([[1, 3, 3, 2, 3], [nan, 1, nan, nan, 0], [-inf, inf, -0.0, 0.0, nan], [-1, -2, -3, -2, -5]])
    expected = {
        0: [[0, 0, 0, 0, 0]] * 4,
        2: [[0, 1, 1, 0, 0], [0, 1, 0, 0, 1], [0, 1, 1, 0, 0], [1, 1, 0, 0, 0]],
        3: [[0, 1, 1, 0, 1], [0, 1, 0, 0, 1], [0, 1, 1, 1, 0], [1, 1, 0, 1, 0]],
        5: [[1, 1, 1, 1, 1], [0, 1, 0, 0, 1], [1, 1, 1, 1, 0], [1, 1, 1, 1, 1]],
    }
    for k, rows in expected.items():
        for dtype in (*DTYPES, torch.float64):
            for operator in (ops.topk_mask, ops.reference.topk_mask):
                assert operator(scores.to(dtype), k).int().tolist() == rows
                assert operator(scores.to(dtype).T.contiguous().T, k).int().tolist() == rows


@pytest.mark.parametrize("tokens", [1, 3, 17, 111, 989])
def test_topk_is_a_stable_sort(tokens):
    scores = torch.randn(5, tokens, generator=torch.Generator().manual_seed(4)).mul(3).round()
    for k in {0, 1, tokens // 2, tokens - 1, tokens}:
        mask = ops.topk_mask(scores, k)
        for row, chosen in zip(scores.tolist(), mask.tolist(), strict=True):
            best = sorted(range(tokens), key=lambda i: (-row[i], i))[:k]
            assert [i for i in range(tokens) if chosen[i]] == sorted(best)


@pytest.mark.parametrize("per_head", [False, True])
@pytest.mark.parametrize("k", [0, 1, 5, 17])
def test_topk_with_the_scores(k, per_head):
    query, key, index = make(3, 4, 2, 1, 111, 16, 17, seed=9)
    index[0, :14] = -1
    index[1, 3] = index[1, 0]  # an exact tie
    scores, chosen = ops.image_attention(query, key, index, top_k=k, per_head=per_head)
    mean = scores.sum(1) if per_head else scores
    assert torch.equal(chosen, ops.topk_mask(mean.masked_fill(index < 0, torch.nan), k))
    assert not chosen[index < 0].any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_worse_than_plain_torch(dtype):
    """Error at most twice that of the same formula in torch (or rounding noise), at a realistic size."""
    query, key, index = make(2, 28, 4, 1, 1300, 128, 900, dtype)
    query = query * 3  # sharp attention: large scores, large errors
    truth = ops.reference.image_attention(query.double(), key.double(), index).double()
    arguments = (query, key, index, None, 128**-0.5, *[None] * 7, 1.0, None, False)
    torch_error = (plain.image_attention(Arguments(*arguments), None, torch.float32)[0] - truth).abs().max().item()
    error = (ops.image_attention(query, key, index) - truth).abs().max().item()
    assert error <= max(ATTENTION_FACTOR * torch_error, FLOOR)


def test_float64_and_wide_heads_are_served_by_plain_torch():
    query, key, index = make(2, 4, 2, 1, 111, 16, 17, torch.float64)
    check(query, key, index)
    check(*make(1, 2, 1, 1, 17, 700, 5))


def test_reference_agrees_with_numpy():
    query, key, index = make(3, 4, 2, 5, 111, 16, 40)
    g = torch.Generator().manual_seed(2)
    options = {
        "query_index": torch.tensor([0, 4, 2]),
        "mask": torch.rand(3, 1, 5, 115, generator=g) < 0.6,
        "position_bias": torch.randn(1, 4, 1, 111, generator=g),
        "sinks": torch.randn(4, generator=g),
        "softcap": 2.0,
        "window": 90,
    }
    found = ops.reference.image_attention(query, key, index, per_head=True, **options)
    np.testing.assert_allclose(numbers(found), oracle(query, key, index, **options), rtol=0, atol=FLOOR)
