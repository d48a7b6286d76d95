"""Places against boxes: the pointing game and the overlap of boxes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from vea_sdk.errors import InvalidInputError

_Box = Sequence[float]


def pointing_game(point: tuple[float, float] | None, boxes: Iterable[_Box]) -> float:
    """1 where the point lies in one of the boxes, else 0 (Zhang et al., "Top-down Neural Attention", ECCV 2016).

    Args:
        point: (x, y) in the pixels of the boxes; None, as of a look without a peak, counts as a miss.
        boxes: (x0, y0, x1, y1), x1 and y1 exclusive.

    Raises:
        InvalidInputError: a box without an area, or what is no box.
    """
    checked = [_checked(box) for box in boxes]
    if point is None:
        return 0.0
    x, y = point
    return float(any(x0 <= x < x1 and y0 <= y < y1 for x0, y0, x1, y1 in checked))


def iou(a: _Box, b: _Box) -> float:
    """|a ∩ b| / |a ∪ b| of two boxes (x0, y0, x1, y1), 0 to 1 (Everingham et al., "The PASCAL VOC Challenge", 2010).

    Raises:
        InvalidInputError: a box without an area, or what is no box.
    """
    (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = _checked(a), _checked(b)
    shared = max(0.0, min(ax1, bx1) - max(ax0, bx0)) * max(0.0, min(ay1, by1) - max(ay0, by0))
    return shared / ((ax1 - ax0) * (ay1 - ay0) + (bx1 - bx0) * (by1 - by0) - shared)


def _checked(box: _Box) -> tuple[float, float, float, float]:
    if len(box) != 4 or not np.isfinite(list(box)).all() or box[2] <= box[0] or box[3] <= box[1]:
        raise InvalidInputError(f"the box {tuple(box)} must be (x0, y0, x1, y1) with x1 > x0 and y1 > y0.")
    x0, y0, x1, y1 = box
    return float(x0), float(y0), float(x1), float(y1)
