"""Step 3 of evidence: min–max to [0, 1]."""

from __future__ import annotations

import torch
from torch import Tensor

from vea_sdk.errors import NaNAttentionError
from vea_sdk.evidence.arrays import ArrayT, like, to_tensor


def normalize(pixel_map: ArrayT) -> ArrayT:
    """ẽ = (e − min e) / (max e − min e); zeros where the map is constant (arXiv 2510.17771, Section 4).

    Constant means a range of less than 16 rounding steps of the largest value: what smoothing leaves of a flat map.

    Args:
        pixel_map: an array of any shape, numpy or torch.

    Raises:
        NaNAttentionError: the map holds NaN or infinity.
    """
    return like(normalize_(to_tensor("pixel_map", pixel_map).clone()), pixel_map)


def normalize_(values: Tensor) -> Tensor:
    """:func:`normalize` in place: the first touch of a fresh buffer of map size costs more than the arithmetic."""
    ends = torch.stack(torch.aminmax(values))  # NaN survives both, so one look at two numbers is enough
    low, high = ends.tolist()
    if not torch.isfinite(ends).all():
        raise NaNAttentionError(
            f"The map spans {low} to {high}: the attention holds NaN or infinity. Run the model in float32 or "
            "bfloat16, or leave the affected layers out."
        )
    if high - low <= 16 * torch.finfo(values.dtype).eps * max(abs(low), abs(high)):
        return values.zero_()
    return values.sub_(ends[0]).div_(ends[1] - ends[0])
