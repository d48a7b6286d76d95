"""From figures per layer to the layers that are chosen."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vea_sdk.errors import InvalidInputError


def n_best(n_layers: int, fraction: float = 0.1) -> int:
    """ceil(fraction · L) (arXiv 2510.17771), at least one.

    Raises InvalidInputError when the fraction is not in (0, 1].
    """
    if not 0 < fraction <= 1:
        raise InvalidInputError(f"fraction={fraction} must be above 0 and at most 1; 0.1 is the published value.")
    return max(1, math.ceil(round(fraction * n_layers, 9)))  # 0.1 · 70 is 7.000000000000001


def best_layers(means: ArrayLike, count: int) -> NDArray[np.int64]:
    """The places of the ``count`` highest means, ascending; of equal means, those of shallower layers.

    Args:
        means: [..., L], such as one row per resample.

    Returns:
        [..., count].
    """
    order = np.argsort(-np.asarray(means, dtype=np.float64), axis=-1, kind="stable")
    return np.sort(order[..., :count], axis=-1)
