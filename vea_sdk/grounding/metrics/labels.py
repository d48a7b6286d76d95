"""Which patches hold evidence, from boxes in pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vea_sdk.adapters.geometry import Box, ImageLayout
from vea_sdk.errors import InvalidInputError

Rule = Literal["any", "half", "all"]


def patch_labels(
    layout_or_boxes: ImageLayout | ArrayLike, evidence_boxes: Sequence[Box], rule: Rule = "any"
) -> NDArray[np.bool_]:
    """Which patches hold evidence.

    ``"any"``: the evidence overlaps the patch; ``"half"``: it covers at least half of it; ``"all"``: it covers all of
    it. The evidence is the union of its boxes. Only the part of a patch that lies in the picture counts, and tokens
    without such a part (separators, padding) are negative.

    Args:
        layout_or_boxes: a picture's layout, or [m, 4] boxes (x0, y0, x1, y1), NaN rows for separators.
        evidence_boxes: boxes in the same pixels (the original's, for a layout); may be empty.
        rule: see above.

    Returns:
        [m] bool.

    Raises:
        InvalidInputError: the rule is unknown, or boxes are not [m, 4] with x1 > x0 and y1 > y0.
    """
    if rule not in get_args(Rule):
        raise InvalidInputError(f'rule={rule!r} is unknown. Choose "any", "half" or "all".')
    if isinstance(layout_or_boxes, ImageLayout):
        height, width = layout_or_boxes.original_size
        patches = np.clip(layout_or_boxes.token_boxes(), 0, [width, height, width, height])
    else:
        patches = _boxes("patch boxes", layout_or_boxes)
    evidence = _boxes("evidence_boxes", evidence_boxes)
    if not (evidence[:, 2:] > evidence[:, :2]).all():
        raise InvalidInputError(f"evidence_boxes need x1 > x0 and y1 > y0; got {evidence.tolist()}.")
    area = (patches[:, 2] - patches[:, 0]) * (patches[:, 3] - patches[:, 1])
    covered = _covered_area(patches, evidence)
    needed = {"any": 0.0, "half": 0.5, "all": 1.0}[rule] * area * (1 - 1e-9)  # areas are sums, rounded
    return np.asarray((covered > 0) & (covered >= needed))


def _boxes(name: str, boxes: Any) -> NDArray[np.float64]:
    array = np.asarray(boxes, dtype=np.float64)
    if array.size == 0:
        return array.reshape(-1, 4)
    if array.ndim != 2 or array.shape[1] != 4:
        raise InvalidInputError(f"{name} must be [m, 4], rows (x0, y0, x1, y1); got shape {array.shape}.")
    return array


def _covered_area(patches: NDArray[np.float64], evidence: NDArray[np.float64]) -> NDArray[np.float64]:
    """Area of each patch under the union of the evidence boxes, [m]; 0 for NaN patches.

    The edges of the boxes cut the plane into cells that are wholly inside or outside of the union.
    """
    if len(evidence) == 0:
        return np.zeros(len(patches))
    x, y = np.unique(evidence[:, 0::2]), np.unique(evidence[:, 1::2])
    inside_x = (evidence[:, :1] <= x[:-1]) & (x[1:] <= evidence[:, 2:3])
    inside_y = (evidence[:, 1:2] <= y[:-1]) & (y[1:] <= evidence[:, 3:])
    inside = (inside_y[:, :, None] & inside_x[:, None, :]).any(axis=0)  # [cells along y, cells along x]
    shared_x = _overlap(patches[:, 0], patches[:, 2], x)
    shared_y = _overlap(patches[:, 1], patches[:, 3], y)
    return np.asarray(((shared_y @ inside) * shared_x).sum(axis=1))


def _overlap(start: NDArray[np.float64], stop: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Length that each [start, stop] shares with each interval between edges, [m, intervals]."""
    shared = np.minimum(stop[:, None], edges[1:]) - np.maximum(start[:, None], edges[:-1])
    return np.asarray(np.nan_to_num(np.maximum(shared, 0), nan=0.0))
