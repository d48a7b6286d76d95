"""Bad input to the operators: one error per case, the same from the compiled and the plain path."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracle import DTYPES, make
from problems import cases
from torch._subclasses import FakeTensorMode

from vea_sdk import _native, ops
from vea_sdk.errors import InvalidInputError

CSRC = Path(__file__).parents[1] / "csrc"
QUERY, KEY, INDEX = make(2, 4, 2, 3, 17, 16, 5)
OUT = torch.zeros(2, 5)

CASES = {  # what to change, and what the message must name
    "query rank": ({"query": QUERY[0]}, "query .*4 dimensions"),
    "query dtype": ({"query": QUERY.long()}, "query .*int64"),
    "key rank": ({"key": KEY[0]}, "key .*4 dimensions"),
    "key dtype": ({"key": KEY.half()}, "key .*float16"),
    "key batch": ({"key": KEY[:1]}, "key .*dimension 0 must be 2"),
    "key dim": ({"key": KEY[..., :8]}, "key .*dimension 3 must be 16"),
    "heads": ({"key": KEY[:, [0, 1, 1]]}, "4 heads, key 3"),
    "no heads": ({"key": KEY[:, :0]}, "4 heads, key 0"),
    "no keys": ({"key": KEY[:, :, :0]}, "at least one position"),
    "no rows": ({"query": QUERY[:, :, :0]}, "at least one position"),
    "key device": ({"key": KEY.to("meta")}, "key is on meta"),
    "index rank": ({"image_index": INDEX[0]}, "image_index .*2 dimensions"),
    "index dtype": ({"image_index": INDEX.float()}, "image_index .*float32"),
    "index batch": ({"image_index": INDEX[:1]}, "image_index .*dimension 0 must be 2"),
    "index too large": ({"image_index": INDEX.clamp(max=3).index_fill(1, torch.tensor([1]), 17)}, "image_index .*17"),
    "index too small": ({"image_index": INDEX.index_fill(1, torch.tensor([1]), -2)}, "image_index .*-2"),
    "row dtype": ({"query_index": torch.zeros(2)}, "query_index .*float32"),
    "row shape": ({"query_index": torch.zeros(3, dtype=torch.int64)}, "query_index .*dimension 0 must be 2"),
    "row too large": ({"query_index": torch.tensor([0, 3])}, "query_index .*3"),
    "row negative": ({"query_index": torch.tensor([0, -1])}, "query_index .*-1"),
    "start dtype": ({"key_start": torch.zeros(2)}, "key_start .*float32"),
    "stop shape": ({"key_stop": torch.zeros(1, dtype=torch.int64)}, "key_stop .*dimension 0 must be 2"),
    "mask rank": ({"mask": torch.ones(2, 17, dtype=torch.bool)}, "mask .*4 dimensions"),
    "mask dtype": ({"mask": torch.ones(2, 1, 3, 17, dtype=torch.int32)}, "mask .*int32"),
    "mask rows": ({"mask": torch.ones(2, 1, 2, 17)}, "mask .*dimension 2 must be 3 or 1"),
    "mask keys": ({"mask": torch.ones(2, 1, 3, 16)}, "mask covers 16 keys, but key holds 17"),
    "bias dtype": ({"position_bias": torch.ones(2, 1, 3, 17, dtype=torch.bool)}, "position_bias .*bool"),
    "bias heads": ({"position_bias": torch.ones(2, 3, 3, 17)}, "position_bias .*dimension 1 must be 4 or 1"),
    "sinks shape": ({"sinks": torch.zeros(2)}, "sinks .*dimension 0 must be 4"),
    "sinks dtype": ({"sinks": torch.zeros(4, dtype=torch.int64)}, "sinks .*int64"),
    "softcap zero": ({"softcap": 0.0}, "softcap = 0"),
    "softcap negative": ({"softcap": -1.0}, "softcap = -1"),
    "softcap infinite": ({"softcap": float("inf")}, "softcap = inf"),
    "window": ({"window": 0}, "window = 0"),
    "out dtype": ({"out": OUT.half()}, "out .*float16"),
    "out shape": ({"out": torch.zeros(2, 6)}, "out .*dimension 1 must be 5"),
    "out rank": ({"out": torch.zeros(2, 5), "per_head": True}, "out .*3 dimensions"),
    "out stride": ({"out": torch.zeros(5, 2).T}, "out .*contiguous"),
    "out batch": ({"out": torch.zeros(3, 5)}, "out .*dimension 0 must be 2"),
    "out heads": ({"out": torch.zeros(2, 3, 5), "per_head": True}, "out .*dimension 1 must be 4"),
    "out rows in one place": ({"out": torch.zeros(1, 5).expand(2, 5)}, "out .*overlapping rows"),
    "out rows overlap": ({"out": torch.zeros(8).as_strided((2, 5), (3, 1))}, "out .*overlapping rows"),
    "out heads overlap": ({"out": torch.zeros(2, 1, 5).expand(2, 4, 5), "per_head": True}, "out .*overlapping rows"),
    "out cross": (
        {"out": torch.zeros(99).as_strided((2, 4, 5), (9, 6, 1)), "per_head": True},
        "out .*overlapping rows",
    ),
    "scale text": ({"scale": "large"}, "scale = 'large'; give a number"),
    "scale vector": ({"scale": torch.ones(4)}, "scale = tensor"),
    "weight": ({"weight": None}, "weight = None; give a number"),
    "softcap text": ({"softcap": "a"}, "softcap = 'a'"),
    "softcap NaN": ({"softcap": float("nan")}, "softcap = nan"),
    "window fraction": ({"window": 2.5}, "window = 2.5"),
    "window negative": ({"window": -3}, "window = -3"),
    "top_k fraction": ({"top_k": 2.5}, "top_k = 2.5; give an integer"),
    "no channels": ({"query": QUERY[..., :0], "key": KEY[..., :0]}, "at least one channel"),
    "no query heads": ({"query": QUERY[:, :0]}, "query has 0 heads"),
    "top_k large": ({"top_k": 6}, "top_k = 6, but there are 5 tokens"),
    "top_k negative": ({"top_k": -1}, "top_k = -1"),
}


TENSORS = {  # each tensor argument as it should be
    "query": QUERY,
    "key": KEY,
    "image_index": INDEX,
    "query_index": torch.zeros(2, dtype=torch.int64),
    "key_start": torch.zeros(2, dtype=torch.int64),
    "key_stop": torch.full((2,), 17),
    "mask": torch.zeros(2, 4, 3, 17),
    "position_bias": torch.zeros(2, 4, 3, 17),
    "sinks": torch.zeros(4),
    "out": OUT,
}

WRONG = {  # ways in which any of them can be wrong, and what the message must say behind its name
    "numpy": (lambda t: t.numpy(), "numpy.ndarray"),
    "a list": (lambda t: t.tolist(), "list"),
    "a number": (lambda t: 1, "int"),
    "rank too low": (lambda t: t[0], r"dimensions|at least one channel"),
    "rank too high": (lambda t: t[None], "dimensions"),
    "batch": (lambda t: torch.cat([t, t, t]), "dimension 0 must be"),
    "complex": (lambda t: t.to(torch.complex64), "complex64"),
    "bytes": (lambda t: t.to(torch.uint8), "uint8"),
    "another device": (lambda t: t.to("meta"), "meta"),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("function", [ops.image_attention, ops.reference.image_attention])
def test_refused(case, function):
    changes, message = CASES[case]
    with pytest.raises(InvalidInputError, match=message):
        function(**({"query": QUERY, "key": KEY, "image_index": INDEX} | changes))


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("name", TENSORS)
@pytest.mark.parametrize("function", [ops.image_attention, ops.reference.image_attention])
def test_every_tensor_in_every_wrong_way(name, kind, function):
    change, message = WRONG[kind]
    first = "key" if name == "query" and kind in ("batch", "another device", "bytes", "complex") else name
    with pytest.raises(InvalidInputError, match=rf"({name}|{first}) .*({message}|the dtype of query|allowed)"):
        function(**TENSORS | {name: change(TENSORS[name])})


@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
@pytest.mark.parametrize("name", TENSORS)
def test_tensors_without_plain_memory(name):
    right = TENSORS[name]
    freed = right.clone()
    freed.untyped_storage().resize_(0)
    wrong = {"sparse": right.to_sparse(), "freed": freed, "fake": FakeTensorMode().from_tensor(right)}
    for kind, tensor in wrong.items():
        if name == "query" and kind == "fake":
            continue  # a fake query is traced, not run
        with pytest.raises(InvalidInputError, match=rf"{name} has no (strided )?memory"):
            ops.image_attention(**TENSORS | {name: tensor})


@pytest.mark.parametrize("name", [name for name, tensor in TENSORS.items() if tensor.is_floating_point()])
def test_negated_views_are_never_read_with_the_wrong_sign(name):
    negated = torch._neg_view(TENSORS[name].clone())
    with pytest.raises(InvalidInputError, match=rf"{name} is a negated view; pass {name}\.resolve_neg\(\)"):
        ops.image_attention(**TENSORS | {name: negated})


def test_sizes_that_only_an_expanded_tensor_has():
    one = torch.zeros(1, 1, 1, 1)
    index = torch.zeros(1, 1, dtype=torch.int64)
    for heads, keys in ((2**60, 16), (2**32, 2**32), (2**20, 2**43)):
        with pytest.raises(InvalidInputError, match="scores"):
            ops.image_attention(one.expand(1, heads, 1, 1), one.expand(1, 1, keys, 1), index)
    assert ops.image_attention(one.expand(1, 1, 2**50, 1), one, index).item() == 1
    with pytest.raises(InvalidInputError, match=r"scores .*tokens"):
        _native.require().topk_mask_cpu(torch.zeros(1, 1).expand(1, 2**33), 1, torch.zeros(1, 1, dtype=torch.bool), 1)


def test_key_ranges_at_the_ends_of_int64():
    ends = torch.tensor([-(2**63), 2**63 - 1])
    for window in (None, 1, 2**63 - 1):
        for function in (ops.image_attention, ops.reference.image_attention):
            nothing = function(QUERY, KEY, INDEX, key_stop=ends[[0, 0]], window=window)
            assert nothing[INDEX >= 0].isnan().all()
            assert function(QUERY, KEY, INDEX, key_start=ends[[1, 1]], window=window)[INDEX >= 0].isnan().all()
            everything = function(QUERY, KEY, INDEX, window=window)
            ranged = function(QUERY, KEY, INDEX, key_start=ends[[0, 0]], key_stop=ends[[1, 1]], window=window)
            assert torch.equal(ranged, everything)


def test_out_may_be_the_memory_of_an_input():
    """Every input has been read before `out` is written."""
    expected = ops.image_attention(QUERY, KEY, INDEX)
    for name in ("query", "key"):
        tensor = TENSORS[name].clone()
        out = tensor.view(-1)[:10].view(2, 5)
        before = out.clone()
        ops.image_attention(**{"query": QUERY, "key": KEY, "image_index": INDEX, name: tensor}, out=out)
        torch.testing.assert_close(out, before + expected)


OTHER = ["a", b"b", [1], {}, object(), QUERY.numpy(), 2**70, -1, 0, 1, 3, 2.5, float("nan"), float("inf"), None]
OPTIONS = ["scale", "weight", "softcap", "window", "top_k", "per_head"]


@st.composite
def junk(draw, name):
    """A value of any kind, now and then a right one."""
    if name in OPTIONS:
        value = draw(st.sampled_from(OTHER))
        return float(value) if type(value) is int and name in ("scale", "weight", "softcap") else value
    shape = draw(st.lists(st.sampled_from([0, 1, 2, 3, 4, 5, 16, 17]), max_size=5))
    dtype = draw(st.sampled_from([*DTYPES, torch.float64, torch.int32, torch.int64, torch.bool, torch.complex64]))
    other = draw(st.sampled_from(list(TENSORS.values())))
    right = TENSORS[name].clone()
    makers = [
        lambda: torch.ones(shape).to(dtype),
        lambda: right.to(dtype),
        lambda: right.transpose(0, -1),
        lambda: right[:1].expand(right.shape),
        lambda: right[..., ::2],
        lambda: other.clone(),
        lambda: draw(st.sampled_from(OTHER)),
    ]
    return draw(st.sampled_from(makers))()


def attempt(function, arguments):
    """(result, None) or (None, what was refused)."""
    try:
        return function(**arguments), None
    except InvalidInputError as error:
        return None, str(error)


@settings(max_examples=cases(1500), suppress_health_check=list(HealthCheck))
@given(st.data())
def test_junk_never_gets_through(data):
    """A refusal that names one of the arguments and leaves `out` alone, or the right result."""
    names = data.draw(st.lists(st.sampled_from([*TENSORS, *OPTIONS]), min_size=1, max_size=3, unique=True))
    arguments = {"query": QUERY, "key": KEY, "image_index": INDEX} | {name: data.draw(junk(name)) for name in names}
    out = arguments.get("out")
    before = out.clone() if isinstance(out, torch.Tensor) else None
    found, refused = attempt(ops.image_attention, arguments)
    if refused is not None:
        assert any(name in refused for name in arguments)
        assert before is None or torch.equal(out, before)
        return
    expected = ops.reference.image_attention(**arguments | ({} if before is None else {"out": before}))
    for a, b in zip(*(r if isinstance(r, tuple) else (r,) for r in (found, expected)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5, equal_nan=True)


@pytest.mark.skipif(not CSRC.is_dir(), reason="needs a source checkout")
def test_no_kernel_ends_the_process():
    sources = [path for path in CSRC.rglob("*") if path.suffix in (".cpp", ".cu", ".cuh", ".h")]
    assert len(sources) > 10
    for path in sources:
        ending = re.search(r"\b(_?exit|_Exit|quick_exit|abort|terminate|assert)\s*\(", path.read_text())
        assert ending is None, f"{path}: {ending}"


@pytest.mark.parametrize("function", [ops.topk_mask, ops.reference.topk_mask])
def test_topk_refused(function):
    for scores, k, message in (
        (torch.zeros(2, 5), 6, "k = 6, but there are 5 tokens"),
        (torch.zeros(2, 5), -1, "k = -1"),
        (torch.zeros(5), 1, "scores .*2 dimensions"),
        (torch.zeros(2, 5, dtype=torch.int64), 1, "scores .*int64"),
        (torch.zeros(2, 5), "a", "k = 'a'; give an integer"),
        (torch.zeros(2, 5), 1.5, "k = 1.5; give an integer"),
        (torch.zeros(2, 5).numpy(), 1, "scores is .*numpy"),
        ([[1.0]], 1, "scores is .*list"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            function(scores, k)


@pytest.mark.parametrize("window", [True, False, 2.0, "3", 0, -1])
def test_a_window_is_a_number_of_keys(window):
    query, key, index = torch.rand(1, 2, 1, 8), torch.rand(1, 2, 5, 8), torch.arange(2)[None]
    for operator in (ops.image_attention, ops.reference.image_attention):
        with pytest.raises(InvalidInputError, match="window"):
            operator(query, key, index, window=window)


@pytest.mark.parametrize("name", ["out", "stats"])
def test_autograd_hears_of_what_is_written(name):
    """As of torch's own operations in place: a value that backward() needs has changed."""
    query, key, index = torch.rand(1, 2, 1, 8), torch.rand(1, 2, 5, 8), torch.arange(4)[None]
    written = torch.zeros(1, 4)
    weight = torch.ones(1, 4, requires_grad=True)
    loss = (weight * written).sum()
    ops.image_attention(query, key, index, **{name: written})
    assert written._version == 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
