"""Step 3 of evidence: min–max to [0, 1]."""

from __future__ import annotations

import math

import numpy as np
import torch

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
    values = to_tensor("pixel_map", pixel_map).clone()
    return like(normalize_(values, *torch.stack(torch.aminmax(values)).tolist()), pixel_map)


def normalize_(values: ArrayT, low: float, high: float) -> ArrayT:
    """:func:`normalize` in place: the first touch of a fresh buffer of map size costs more than the arithmetic.

    ``low``, ``high``: the smallest and the largest value, NaN where there is one.
    """
    if not (math.isfinite(low) and math.isfinite(high)):
        raise NaNAttentionError(
            f"The map spans {low} to {high}: the attention holds NaN or infinity. Run the model in float32 or "
            "bfloat16, or leave the affected layers out."
        )
    double = values.dtype in (np.float64, torch.float64)
    if high - low <= 16 * np.finfo(np.float64 if double else np.float32).eps * max(abs(low), abs(high)):
        values[...] = 0
        return values
    values -= low
    values /= high - low
    return values
