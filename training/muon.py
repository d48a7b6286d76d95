"""Muon in float32: momentum, then the nearest semi-orthogonal matrix, batched over matrices of one shape.

Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024). ``torch.optim.Muon`` computes
in bfloat16, which processors without bfloat16 units emulate very slowly.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch


def orthogonalise(matrices: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Newton-Schulz iteration towards U Vᵀ for a stack of matrices [n, rows, columns]."""
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """For hidden weight matrices only; embeddings, biases and norms belong to AdamW."""

    def __init__(self, params: Iterable[torch.nn.Parameter], lr: float = 0.02, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            by_shape = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    by_shape[p.shape].append(p)
            for (rows, columns), same in by_shape.items():
                updates = []
                for p in same:
                    velocity = self.state[p].setdefault("velocity", torch.zeros_like(p))
                    velocity.lerp_(p.grad, 1 - group["momentum"])
                    updates.append(p.grad.lerp(velocity, group["momentum"]))
                step = group["lr"] * max(1, rows / columns) ** 0.5
                for p, update in zip(same, orthogonalise(torch.stack(updates)), strict=True):
                    p.mul_(1 - 0.01 * group["lr"]).add_(update, alpha=-step)
