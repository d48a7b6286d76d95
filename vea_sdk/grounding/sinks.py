"""Attention sinks: lone patches that draw attention without holding evidence, and what denoising makes of them.

A cell of the patch grid is a sink where e[i,j] > λ · max of its 3×3 neighbours (arXiv 2510.17771, Eq. 2): there,
:func:`vea_sdk.evidence.denoise` replaces it by their mean. With ``border="valid"`` the neighbours are the cells that
exist; with ``"replicate"``, the authors' padding, a cell on the border is its own neighbour and never a sink (λ ≥ 1).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vea_sdk.adapters.geometry import Box, PatchGrid
from vea_sdk.errors import InvalidInputError
from vea_sdk.evidence import Evidence, denoise
from vea_sdk.evidence.denoising import Border, spikes


@dataclass(frozen=True)
class Sink:
    """One sink.

    ``grid``: 0 is the finest over the whole picture; ``row``, ``col``: its cell; ``x``, ``y``: the cell's centre in
    parts of the grid's width and height; ``box``: its pixels in the original picture. ``share``: its part of the
    attention on the picture. ``edge``: on the border of its grid; ``corner``: in a corner. ``evidence``: whether the
    patch holds evidence, None where that was not said; then it is no sink but sharp attention.
    """

    grid: int
    row: int
    col: int
    x: float
    y: float
    box: Box
    share: float
    edge: bool
    corner: bool
    evidence: bool | None = None


@dataclass(frozen=True)
class LayerSinks:
    """The sinks of one layer in one picture. ``removed`` is the part of the attention on the picture that denoising
    takes away, Σ(e − e′) / Σe; 0 where there is no attention."""

    layer: int
    sinks: tuple[Sink, ...]
    removed: float

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> LayerSinks:
        """The reverse of ``dataclasses.asdict``, also from JSON."""
        sinks = tuple(Sink(**{**sink, "box": tuple(sink["box"])}) for sink in fields["sinks"])
        return cls(fields["layer"], sinks, fields["removed"])


@dataclass(frozen=True)
class SinkSummary:
    """The sinks of one layer over ``n_samples`` pictures.

    ``count``: sinks per picture; ``present``: share of the pictures that have any; ``edge``, ``corner``, ``evidence``:
    share of the sinks there (corners are edges, too), None without a sink; ``removed``: mean of :class:`LayerSinks`'s.
    """

    layer: int
    n_samples: int
    count: float
    present: float
    edge: float | None
    corner: float | None
    evidence: float | None
    removed: float


def find(
    evidence: Evidence, lam: float = 10.0, border: Border = "valid", labels: NDArray[np.bool_] | None = None
) -> list[LayerSinks]:
    """The sinks of every layer that the evidence holds, in order.

    Args:
        evidence: of one picture, such as ``vlm.attend_many([image], [question], layers="all")[0]``.
        lam: λ > 0.
        border: ``"valid"`` or ``"replicate"``, see above.
        labels: [m] bool, which patches hold evidence, such as :func:`vea_sdk.metrics.patch_labels` gives.

    Raises:
        InvalidInputError: λ is not positive, the border rule is unknown, or there are not as many labels as patches.
    """
    if labels is not None and labels.shape != evidence.scores.shape:
        raise InvalidInputError(f"labels {labels.shape} do not match the picture's {len(evidence.scores)} patches.")
    return [
        _of_layer(layer, scores, evidence.layout.grids, lam, border, labels)
        for layer, scores in zip(evidence.layers, evidence.layer_scores.astype(np.float64), strict=True)
    ]


def _of_layer(
    layer: int,
    scores: NDArray[np.float64],
    grids: Sequence[PatchGrid],
    lam: float,
    border: Border,
    labels: NDArray[np.bool_] | None,
) -> LayerSinks:
    total = float(scores.sum())
    sinks, removed = [], 0.0
    for number, grid in enumerate(grids):
        cells = scores[grid.token_index]
        removed += float((cells - denoise(cells, lam, border)).sum())
        for row, col in np.argwhere(spikes(cells, lam, border)).tolist():
            on_evidence = None if labels is None else bool(labels[grid.token_index[row, col]])
            sinks.append(_sink(number, grid, row, col, float(cells[row, col]) / total, on_evidence))
    return LayerSinks(layer, tuple(sinks), removed / total if total > 0 else 0.0)


def _sink(number: int, grid: PatchGrid, row: int, col: int, share: float, on_evidence: bool | None) -> Sink:
    sides = (row in (0, grid.rows - 1)) + (col in (0, grid.cols - 1))
    x0, y0, x1, y1 = grid.boxes()[row, col].tolist()
    return Sink(
        grid=number,
        row=row,
        col=col,
        x=(col + 0.5) / grid.cols,
        y=(row + 0.5) / grid.rows,
        box=(x0, y0, x1, y1),
        share=share,
        edge=sides > 0,
        corner=sides == 2,
        evidence=on_evidence,
    )


def summarise(found: Iterable[Sequence[LayerSinks]]) -> list[SinkSummary]:
    """Figures per layer over several pictures, from what :func:`find` gave for each.

    Raises:
        InvalidInputError: there is no picture, or they were read at different layers.
    """
    pictures = list(found)
    if not pictures:
        raise InvalidInputError("there is no picture to summarise sinks over. Give what find() returned, one or more.")
    layers = {tuple(one.layer for one in picture) for picture in pictures}
    if len(layers) > 1:
        raise InvalidInputError(f"the pictures were read at different layers: {sorted(layers)}. Summarise them apart.")
    return [_summary([picture[place] for picture in pictures]) for place in range(len(pictures[0]))]


def _summary(layers: Sequence[LayerSinks]) -> SinkSummary:
    sinks = [sink for one in layers for sink in one.sinks]
    return SinkSummary(
        layer=layers[0].layer,
        n_samples=len(layers),
        count=len(sinks) / len(layers),
        present=sum(bool(one.sinks) for one in layers) / len(layers),
        edge=_share([sink.edge for sink in sinks]),
        corner=_share([sink.corner for sink in sinks]),
        evidence=_share([sink.evidence for sink in sinks if sink.evidence is not None]),
        removed=sum(one.removed for one in layers) / len(layers),
    )


def _share(holds: Sequence[bool]) -> float | None:
    return sum(holds) / len(holds) if holds else None
