"""Small calls over the option space of the kernels, for compute-sanitizer; checks the numbers as well.

    compute-sanitizer --tool memcheck python benchmarks/sanitize.py

Inputs are made on the CPU and copied, so that hardly any kernel but this package's runs. Every result is copied back
whole, so that an element that nobody wrote would be read.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from vea_sdk import ops

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
SIZES = [  # B, Hq, Hkv, Lq, Lk, D, M
    (1, 1, 1, 1, 1, 1, 1),
    (2, 4, 2, 3, 17, 72, 5),
    (1, 7, 1, 1, 111, 128, 40),
    (2, 6, 3, 2, 300, 80, 111),
    (1, 17, 1, 1, 989, 96, 500),
    (3, 2, 2, 1, 257, 256, 256),
    (1, 3, 3, 1, 65, 35, 0),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    device = parser.parse_args().device
    if device == "cuda" and not torch.cuda.is_available():
        sys.exit("torch sees no CUDA device here")
    calls = sum(check(dtype, size, device) for dtype in DTYPES for size in SIZES)
    print(f"{calls} calls agree with the float64 reference")


def check(dtype: torch.dtype, size: tuple[int, ...], device: str) -> int:
    """Compare every call of one shape; returns how many there were."""
    query, key, index = tensors(dtype, size)
    count = 0
    for named in options(dtype, size):
        expected = ops.reference.image_attention(query, key, index, **copied(named, "cpu"))
        on_device = (query.to(device), key.to(device), index.to(device))
        found = ops.image_attention(*on_device, **copied(named, device))
        scores, wanted = (one[0] if isinstance(one, tuple) else one for one in (found, expected))
        torch.testing.assert_close(scores.cpu(), wanted, rtol=0, atol=2e-6, equal_nan=True)
        if isinstance(found, tuple):
            assert found[1].cpu().sum() == expected[1].sum()
        count += 1
    scores = torch.rand(size[0], size[6], generator=torch.Generator().manual_seed(2))
    for k in {0, size[6] // 2, size[6]}:
        assert torch.equal(ops.topk_mask(scores.to(device), k).cpu(), ops.reference.topk_mask(scores, k))
        count += 1
    return count


def tensors(dtype: torch.dtype, size: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    batch, heads, kv_heads, queries, keys, dim, tokens = size
    g = torch.Generator().manual_seed(0)
    query = torch.randn(batch, heads, queries, dim, generator=g).to(dtype)
    key = torch.randn(batch, keys, kv_heads, dim, generator=g).to(dtype).transpose(1, 2)  # strided, as models have it
    index = torch.randint(-1, keys, (batch, tokens), generator=g)
    run = min(tokens // 2, keys)  # consecutive keys up to the last one, as prompts have them; the others lie anywhere
    index[:, :run] = torch.arange(keys - run, keys)
    return query, key, index


def options(dtype: torch.dtype, size: tuple[int, ...]) -> Iterator[dict[str, Any]]:
    """Each option alone, then all together."""
    batch, heads, _, queries, keys, _, tokens = size
    g = torch.Generator().manual_seed(1)
    visible = torch.rand(batch, 1, queries, keys + 3, generator=g) < 0.6
    single: dict[str, Any] = {
        "query_index": torch.randint(0, queries, (batch,), generator=g),
        "key_start": torch.randint(0, keys + 1, (batch,), generator=g),
        "key_stop": torch.randint(0, keys + 2, (batch,), generator=g),
        "mask": torch.where(visible, 0.0, torch.finfo(dtype).min).to(dtype),
        "position_bias": torch.randn(1, heads, queries, keys, generator=g).to(dtype),
        "sinks": torch.randn(heads, generator=g).to(dtype),
        "softcap": 2.0,
        "window": max(1, keys // 3),
        "scale": 0.7,
        "top_k": tokens // 3,
    }
    yield {}
    yield {"per_head": True}
    yield {"mask": visible}
    yield {"out": torch.ones(batch, tokens), "weight": 0.25}
    for name, value in single.items():
        yield {name: value}
    yield single


def copied(named: dict[str, Any], device: str) -> dict[str, Any]:
    """The options with tensors of their own on the device."""
    return {name: value.clone().to(device) if isinstance(value, Tensor) else value for name, value in named.items()}


if __name__ == "__main__":
    main()
