"""Bad input to the operators: one error per case, the same from the compiled and the plain path."""

from __future__ import annotations

import pytest
import torch
from oracle import make

from vea_sdk import ops
from vea_sdk.errors import InvalidInputError

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
    "top_k large": ({"top_k": 6}, "top_k = 6, but there are 5 tokens"),
    "top_k negative": ({"top_k": -1}, "top_k = -1"),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("function", [ops.image_attention, ops.reference.image_attention])
def test_refused(case, function):
    changes, message = CASES[case]
    with pytest.raises(InvalidInputError, match=message):
        function(**({"query": QUERY, "key": KEY, "image_index": INDEX} | changes))


def test_key_with_scattered_channels_is_refused_with_the_remedy():
    with pytest.raises(InvalidInputError, match=r"pass key\.contiguous\(\)"):
        ops.image_attention(QUERY, KEY.transpose(2, 3).contiguous().transpose(2, 3), INDEX)


def test_misaligned_memory_is_refused():
    raw = torch.zeros(4 * QUERY.numel() + 1, dtype=torch.uint8)
    floats = torch.frombuffer(memoryview(raw.numpy())[1:], dtype=torch.float32, count=QUERY.numel())
    with pytest.raises(InvalidInputError, match="query is not aligned"):
        ops.image_attention(floats.view(QUERY.shape), KEY, INDEX)


@pytest.mark.parametrize("function", [ops.topk_mask, ops.reference.topk_mask])
def test_topk_refused(function):
    for scores, k, message in (
        (torch.zeros(2, 5), 6, "k = 6, but there are 5 tokens"),
        (torch.zeros(2, 5), -1, "k = -1"),
        (torch.zeros(5), 1, "scores .*2 dimensions"),
        (torch.zeros(2, 5, dtype=torch.int64), 1, "scores .*int64"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            function(scores, k)
