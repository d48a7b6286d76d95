"""Heads spread over processes: each holds an equal share of them, so the mean over all is the mean of their means."""

from __future__ import annotations

from typing import Any

import torch.distributed
from torch import Tensor, nn

from vea_sdk.ops.plain import figures


def ranks_of(model: nn.Module) -> Any | None:
    """The process group over which Transformers' ``tp_plan`` spread the model's heads; None where it did not."""
    mesh, size = getattr(model, "_device_mesh", None), getattr(model, "_tp_size", None)
    if mesh is None or size is None or size < 2:
        return None
    return mesh.get_group("tp" if "tp" in (mesh.mesh_dim_names or ()) else 0)


def average(row: Tensor, stats: Tensor, ranks: Any) -> None:
    """Turn the mean over the heads of this process, row [B, M] and its figures [B, 4], into that over all heads."""
    sums = torch.cat([row, stats[:, :2].sum(1, keepdim=True)], 1) / torch.distributed.get_world_size(ranks)
    torch.distributed.all_reduce(sums, group=ranks)
    row.copy_(sums[:, :-1])
    stats.copy_(figures(row, sums[:, -1]))
