"""The capture kernel's task at one shape, and the other ways to do it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from vea_sdk import ops


@dataclass(frozen=True)
class Shape:
    """One query token per sequence: B, Hq, Hkv, Lk, D, and M = Lk/2 image tokens."""

    batch: int
    heads: int
    kv_heads: int
    keys: int
    dim: int

    @property
    def tokens(self) -> int:
        return max(1, self.keys // 2)

    def key_bytes(self, dtype: torch.dtype) -> int:
        """K, read once: Hkv · Lk · D · itemsize per sequence."""
        return self.batch * self.kv_heads * self.keys * self.dim * dtype.itemsize

    @property
    def operations(self) -> int:
        """2 · Hq · Lk · D per sequence."""
        return 2 * self.batch * self.heads * self.keys * self.dim

    def as_dict(self) -> dict[str, int | str]:
        return {"B": self.batch, "Hq": self.heads, "Hkv": self.kv_heads, "Lk": self.keys, "D": self.dim}


@dataclass(frozen=True)
class Problem:
    """Random tensors of one shape."""

    query: Tensor  # [B, Hq, 1, D]
    key: Tensor  # [B, Hkv, Lk, D]
    value: Tensor  # [B, Hkv, Lk, D]
    image_index: Tensor  # [B, M]

    @classmethod
    def random(cls, shape: Shape, dtype: torch.dtype, device: torch.device | str = "cpu", queries: int = 1) -> Problem:
        g = torch.Generator(device).manual_seed(0)

        def normal(heads: int, length: int) -> Tensor:
            return torch.randn(shape.batch, heads, length, shape.dim, generator=g, device=device, dtype=dtype)

        tokens = torch.arange(shape.tokens, device=device) + shape.keys // 4
        return cls(
            query=normal(shape.heads, queries),
            key=normal(shape.kv_heads, shape.keys),
            value=normal(shape.kv_heads, shape.keys),
            image_index=tokens.expand(shape.batch, -1).contiguous(),
        )

    def kernel(self) -> Tensor:
        """This package's kernel."""
        scores = ops.image_attention(self.query, self.key, self.image_index)
        assert isinstance(scores, Tensor)
        return scores

    def torch(self) -> Tensor:
        """matmul, softmax, mean and gather of torch, in the tensors' own dtype; K is not repeated over a group."""
        batch, heads, _, dim = self.query.shape
        kv_heads = self.key.shape[1]
        row = self.query[:, :, -1].reshape(batch, kv_heads, heads // kv_heads, dim) * dim**-0.5
        weights = (row @ self.key.transpose(-1, -2)).softmax(-1)
        scores: Tensor = weights.flatten(1, 2).mean(1).gather(-1, self.image_index)
        return scores.float()

    def sdpa(self) -> Tensor:
        """What the model computes anyway in a decoding step of this layer."""
        row = self.query[:, :, -1:]
        output: Tensor = functional.scaled_dot_product_attention(row, self.key, self.value, enable_gqa=True)
        return output
