"""From a look's map to boxes and a point."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vea_sdk.adapters.geometry import Box, ImageLayout
from vea_sdk.errors import InvalidInputError

SAMPLES = 8
"""Samples of the map along a cell's side, at the most."""


@dataclass(frozen=True)
class Region:
    """A part of the picture that the model looked at.

    ``box``: (x0, y0, x1, y1) in original pixels. ``share``: Σ scores · covered part of each cell / Σ scores, the share
    of the picture's attention inside the box, 0 to 1. ``peak``: the highest value of the look's map in it, 0 to 1.
    """

    box: Box
    share: float
    peak: float


class _Found(NamedTuple):
    region: Region
    centre: tuple[float, float]


def regions(
    look: NDArray[np.float32], scores: NDArray[np.float32], layout: ImageLayout, threshold: float = 0.5, most: int = 5
) -> list[Region]:
    """Connected parts of the look's map at or above ``threshold`` of its maximum, as boxes.

    The map is sampled, at no more than 8 places along a side of the finest grid's cells. Samples are connected with
    their 8 neighbours; parts smaller than one cell are left out, but for that of the peak.

    Args:
        look: [H, W] in original pixels, in [0, 1], see :func:`vea_sdk.evidence.look_map`.
        scores: [n_tokens] that the shares are counted in.
        layout: of the picture.
        threshold: from 0 to 1, of the maximum.
        most: the most regions to return.

    Returns:
        The regions by share, the highest first; none where the map is constant.

    Raises:
        InvalidInputError: threshold or most out of range.
    """
    return [found.region for found in _found(look, scores, layout, threshold, most)]


def point(look: NDArray[np.float32], scores: NDArray[np.float32], layout: ImageLayout) -> tuple[float, float] | None:
    """(x, y) in original pixels: the centre of mass of the look's map over the first of :func:`regions`; None where the
    map is constant."""
    found = _found(look, scores, layout, 0.5, SAMPLES * SAMPLES * layout.n_tokens)
    return found[0].centre if found else None


def _found(
    look: NDArray[np.float32], scores: NDArray[np.float32], layout: ImageLayout, threshold: float, most: int
) -> list[_Found]:
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 <= threshold <= 1:
        raise InvalidInputError(f"threshold={threshold!r} must lie in [0, 1]: a share of the map's maximum.")
    if isinstance(most, bool) or not isinstance(most, int) or most < 1:
        raise InvalidInputError(f"most={most!r} must be a whole number of at least 1.")
    highest = float(look.max())
    if highest <= 0:  # a constant map is normalised to zeros
        return []
    cell = layout.finest
    height, width = look.shape
    x0, y0, x1, y1 = cell.region
    ys, xs = _samples(height, (y1 - y0) / cell.rows), _samples(width, (x1 - x0) / cell.cols)
    sampled = look[np.ix_(ys.at, xs.at)]
    labels = components(sampled >= threshold * sampled.max())
    per_cell = cell.cell_area / (ys.step * xs.step)
    top = int(labels.flat[int(sampled.argmax())])
    boxes = layout.visible_boxes()
    found = []
    for label in range(1, int(labels.max()) + 1):
        part = labels == label
        if label != top and part.sum() < per_cell:
            continue
        rows, cols = np.nonzero(part.any(1))[0], np.nonzero(part.any(0))[0]
        box = (
            float(cols[0] * xs.step),
            float(rows[0] * ys.step),
            float((cols[-1] + 1) * xs.step),
            float((rows[-1] + 1) * ys.step),
        )
        weights = np.where(part, sampled, 0).astype(np.float64)
        total = weights.sum()
        centre = (
            float((weights.sum(0) * (np.arange(len(xs.at)) + 0.5)).sum() / total * xs.step),
            float((weights.sum(1) * (np.arange(len(ys.at)) + 0.5)).sum() / total * ys.step),
        )
        peak = float(sampled[part].max())
        found.append((label, _Found(Region(box, _share(box, boxes, scores, layout), peak), centre)))
    found.sort(key=lambda pair: -pair[1].region.share)
    chosen = found[:most]
    if all(label != top for label, _ in chosen):  # the peak's region always
        chosen[-1] = next(pair for pair in found if pair[0] == top)
    return [one for _, one in chosen]


class _Axis(NamedTuple):
    at: NDArray[np.int64]  # pixels that are sampled
    step: float  # pixels from one to the next


def _samples(size: int, cell: float) -> _Axis:
    count = min(size, math.ceil(SAMPLES * size / cell))
    step = size / count
    return _Axis(np.floor((np.arange(count) + 0.5) * step).astype(np.int64), step)


def _share(box: Box, boxes: NDArray[np.float64], scores: NDArray[np.float32], layout: ImageLayout) -> float:
    """Σ scores · covered part of each cell / Σ scores, over the cells that show a part of the picture."""
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    wide = np.minimum(boxes[:, 2], box[2]) - np.maximum(boxes[:, 0], box[0])
    high = np.minimum(boxes[:, 3], box[3]) - np.maximum(boxes[:, 1], box[1])
    seen = areas > 0
    covered = wide.clip(min=0)[seen] * high.clip(min=0)[seen] / areas[seen]
    total = scores[seen].sum(dtype=np.float64)
    return float((scores[seen] * covered).sum() / total) if total > 0 else 0.0


def components(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """[rows, cols] numbers of the connected parts of a mask, 8 neighbours, from 1 in the order of their first cells; 0
    outside. Runs of each row are joined with the runs that they touch in the row above."""
    labels = np.zeros(mask.shape, np.int64)
    parents = [0]
    above: list[tuple[int, int, int]] = []
    for y, row in enumerate(mask):
        edges = np.flatnonzero(np.diff(np.concatenate([[False], row, [False]]).astype(np.int8)))
        runs = []
        for start, stop in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            touching = [_root(parents, label) for first, last, label in above if first <= stop and last >= start]
            label = min(touching, default=len(parents))
            if not touching:
                parents.append(label)
            for other in touching:
                parents[other] = label
            labels[y, start:stop] = label
            runs.append((start, stop, label))
        above = runs
    roots = np.array([_root(parents, label) for label in range(len(parents))])
    return np.asarray(np.unique(roots, return_inverse=True)[1].reshape(-1)[labels])


def _root(parents: Sequence[int], label: int) -> int:
    while parents[label] != label:
        label = parents[label]
    return label
