"""The short way to the rows of decoding steps: the truth of tests/oracle.py, and nothing written where it declines."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oracle import DTYPES, Rows, check_figures, make, numbers
from tolerances import ATTENTION

from vea_sdk import _native
from vea_sdk.errors import InvalidInputError
from vea_sdk.ops.step_reader import step_reader

pytestmark = pytest.mark.skipif(_native.extension() is None, reason="needs the compiled extension")

ROWS, TOKENS = 3, 5
QUERY, KEY, INDEX = make(2, 4, 2, 1, 17, 16, TOKENS)
LAST = int(INDEX.max())


def buffers(batch=2, tokens=TOKENS):
    return torch.full((ROWS, batch, tokens), 7.0), torch.full((ROWS, batch, 4), 7.0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("index", [torch.int32, torch.int64])
@pytest.mark.parametrize("scale", [None, 0.3])
@pytest.mark.parametrize(("batch", "keys", "tokens"), [(1, 1, 1), (1, 989, 111), (3, 300, 17), (2, 17, 0), (0, 17, 3)])
def test_a_row_of_the_buffers(dtype, index, scale, batch, keys, tokens):
    query, key, image_index = make(batch, 4, 2, 1, keys, 24, tokens, dtype, index=index)
    scores, stats = buffers(batch, tokens)
    assert step_reader(image_index, scores, stats)(1, query, key, scale, keys)
    truth = Rows(query, key, scale=scale)
    np.testing.assert_allclose(numbers(scores[1]), truth.at(image_index).mean(1), rtol=0, atol=ATTENTION)
    check_figures(stats[1], truth.figures(image_index))
    assert all((buffer[[0, 2]] == 7).all() for buffer in (scores, stats))


def test_one_step_after_the_other():
    scores, stats = buffers()
    read = step_reader(INDEX, scores, stats)
    for row in range(ROWS):  # the cache grows, and its memory moves
        query, key, _ = make(2, 4, 2, 1, 17 + row, 16, TOKENS, seed=row)
        assert read(row, query, key, None, 17 + row)
        np.testing.assert_allclose(numbers(scores[row]), Rows(query, key).at(INDEX).mean(1), rtol=0, atol=ATTENTION)


def test_memory_of_any_strides():
    query, key = QUERY.transpose(1, 2).contiguous().transpose(1, 2), KEY.transpose(1, 2).contiguous().transpose(1, 2)
    scores, stats = buffers()
    assert step_reader(INDEX.T.contiguous().T, scores, stats)(0, query, key, None, 0)
    np.testing.assert_allclose(numbers(scores[0]), Rows(QUERY, KEY).at(INDEX).mean(1), rtol=0, atol=ATTENTION)


DECLINED = {
    "a row before the first": {"row": -1},
    "a row behind the last": {"row": ROWS},
    "several queries": {"query": QUERY.expand(2, 4, 3, 16)},
    "dropped keys": {"kept": 18},
    "an image token beyond the keys": {"key": KEY[:, :, :LAST]},
    "another batch": {"query": QUERY[:1], "key": KEY[:1]},
    "a key of another batch": {"key": KEY[:1]},
    "no keys": {"key": KEY[:, :, :0]},
    "heads that do not divide": {"key": KEY[:, [0, 1, 1]]},
    "another dimension": {"key": KEY[..., :8]},
    "too many channels": {"query": QUERY.repeat(1, 1, 1, 64), "key": KEY.repeat(1, 1, 1, 64)},
    "a key along whose channels one must stride": {"key": KEY.mT.contiguous().mT},
    "float64": {"query": QUERY.double(), "key": KEY.double()},
    "integers": {"query": QUERY.long(), "key": KEY.long()},
    "two dtypes": {"key": KEY.half()},
    "three dimensions": {"query": QUERY[0]},
    "another device": {"key": KEY.to("meta")},
    "sparse keys": {"key": KEY.to_sparse()},
    "a negated view": {"key": torch.complex(KEY, KEY).conj().imag},
    "a subclass, which may compute in its own way": {"key": torch.nn.Parameter(KEY)},
    "a list": {"key": KEY.tolist()},
    "nothing": {"query": None},
}


@pytest.mark.parametrize("case", DECLINED)
def test_what_is_left_to_image_attention(case):
    scores, stats = buffers()
    given = {"row": 0, "query": QUERY, "key": KEY, "scale": None, "kept": 17, **DECLINED[case]}
    assert not step_reader(INDEX, scores, stats)(*given.values())
    assert (scores == 7).all()
    assert (stats == 7).all()


REFUSED = {
    "index list": ({"image_index": [[0]]}, "image_index is .*list"),
    "index rank": ({"image_index": INDEX[0]}, "image_index .*2 dimensions"),
    "index dtype": ({"image_index": INDEX.float()}, "image_index .*float32"),
    "index device": ({"image_index": INDEX.to("meta")}, "image_index is on meta"),
    "index too small": ({"image_index": INDEX - LAST - 2}, "image_index holds -"),
    "scores dtype": ({"scores": buffers()[0].half()}, "scores .*float16"),
    "scores rank": ({"scores": buffers()[0][0]}, "scores .*3 dimensions"),
    "scores batch": ({"scores": buffers(3)[0]}, "scores .*dimension 1 must be 2"),
    "scores tokens": ({"scores": buffers(2, 6)[0]}, "scores .*dimension 2 must be 5"),
    "scores stride": ({"scores": buffers(2, 10)[0][..., ::2]}, "scores has stride .*contiguous"),
    "scores in one place": ({"scores": torch.zeros(1, 2, TOKENS).expand(ROWS, 2, TOKENS)}, "scores has stride 0"),
    "stats dtype": ({"stats": buffers()[1].double()}, "stats .*float64"),
    "stats rows": ({"stats": buffers()[1][:2]}, "stats .*dimension 0 must be 3"),
    "stats width": ({"stats": torch.zeros(ROWS, 2, 5)}, "stats .*dimension 2 must be 4"),
    "stats stride": ({"stats": buffers()[1].mT.contiguous().mT}, "stats has stride .*contiguous"),
    "stats device": ({"stats": buffers()[1].to("meta")}, "stats is on meta"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_stays_from_step_to_step_is_checked_at_once(case):
    change, message = REFUSED[case]
    scores, stats = buffers()
    with pytest.raises(InvalidInputError, match=message):
        step_reader(**{"image_index": INDEX, "scores": scores, "stats": stats, **change})


def test_a_scale_that_is_no_number():
    with pytest.raises(InvalidInputError, match="scale = 'large'; give a number"):
        step_reader(INDEX, *buffers())(0, QUERY, KEY, "large", 0)


def test_the_memory_stays_as_long_as_the_reader():
    scores, stats = buffers()
    read = step_reader(INDEX.clone(), scores.view(-1).view(ROWS, 2, TOKENS), stats)  # nobody else holds the first two
    junk = [torch.full((2, TOKENS), 10**9) for _ in range(100)]
    assert read(0, QUERY, KEY, None, 0)
    np.testing.assert_allclose(numbers(scores[0]), Rows(QUERY, KEY).at(INDEX).mean(1), rtol=0, atol=ATTENTION)
    del junk


@pytest.mark.parametrize("scores", [torch.zeros(ROWS, 2, TOKENS, device="meta"), torch.zeros(1, dtype=torch.float64)])
def test_where_no_kernel_serves_there_is_no_reader(scores):
    assert step_reader(INDEX, scores, scores) is None
