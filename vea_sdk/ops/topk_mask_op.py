"""``topk_mask``: schema, shape rule and dispatch side by side."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.library import fallthrough_kernel, register_fake

from . import plain
from .arguments import check_topk_mask, require_tensor
from .dispatch import kernels_for, on_device_of
from .library import LIBRARY


def topk_mask(scores: Tensor, k: int) -> Tensor:
    """mask[b, i] = (scores[b, i] is among the k largest of row b).

    Equal scores: the lower index wins. NaN is never selected, so a row with fewer than k numbers marks fewer.

    Args:
        scores: [B, M] floating point.
        k: 0 ≤ k ≤ M.

    Returns:
        [B, M] bool.

    Raises:
        InvalidInputError: k beyond M, or scores that are not [B, M] floats.
    """
    require_tensor("scores", scores)
    if type(scores) is Tensor and not torch.compiler.is_compiling():
        return _run(scores, k)
    mask: Tensor = torch.ops.vea_sdk.topk_mask(scores, k)
    return mask


LIBRARY.define("topk_mask(Tensor scores, SymInt k) -> Tensor")


@register_fake("vea_sdk::topk_mask")  # type: ignore[untyped-decorator]
def _fake(scores: Tensor, k: int) -> Tensor:
    check_topk_mask(scores, k)
    return scores.new_empty(scores.shape, dtype=torch.bool)


def _run(scores: Tensor, k: int) -> Tensor:
    kernels = kernels_for(scores)
    if kernels is not None:
        chosen = torch.empty(scores.shape, dtype=torch.bool, device=scores.device)
        if scores.is_cpu:
            kernels.topk_mask_cpu(scores, k, chosen, torch.get_num_threads())
        else:
            with on_device_of(scores):
                kernels.topk_mask_cuda(scores, k, chosen, torch.cuda.current_stream().cuda_stream)
        return chosen
    check_topk_mask(scores, k)
    with torch.no_grad():
        return plain.topk_mask(scores, k)


LIBRARY.impl("topk_mask", _run, "CompositeExplicitAutograd")
LIBRARY.impl("topk_mask", fallthrough_kernel, "Autograd")
