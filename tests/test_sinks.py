"""Sinks against a plain loop over cells, under both border rules."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
from PIL import Image

from vea_sdk.adapters.geometry import ImageLayout, PatchGrid
from vea_sdk.errors import InvalidInputError
from vea_sdk.evidence import Evidence
from vea_sdk.grounding.sinks import LayerSinks, find, summarise


def evidence_of(layer_scores: np.ndarray, grids: list[tuple[int, int]]) -> Evidence:
    """Grids of these sizes over the whole of a 120 x 80 picture, their tokens one after another, then a separator."""
    first, placed = 0, []
    for rows, cols in grids:
        placed.append(PatchGrid((0, 0, 120, 80), first + np.arange(rows * cols).reshape(rows, cols)))
        first += rows * cols
    layout = ImageLayout((80, 120), (80, 120), (0, 0, 120, 80), first + 1, tuple(placed))
    scores = np.asarray(layer_scores, dtype=np.float32)
    layers = tuple(range(3, 3 + len(scores)))
    return Evidence(Image.new("RGB", (120, 80)), "what?", scores.mean(0), layout, layers, scores)


def by_hand(cells: list[list[float]], lam: float, border: str) -> tuple[list[tuple[int, int]], float]:
    """Spikes and what their replacement takes away, from the definition."""
    rows, cols = len(cells), len(cells[0])
    places, removed = [], 0.0
    for row in range(rows):
        for col in range(cols):
            around = []
            for dy, dx in ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)):
                y, x = row + dy, col + dx
                if border == "replicate":
                    around.append(cells[min(max(y, 0), rows - 1)][min(max(x, 0), cols - 1)])
                elif 0 <= y < rows and 0 <= x < cols:
                    around.append(cells[y][x])
            if around and cells[row][col] > lam * max(around):
                places.append((row, col))
                removed += cells[row][col] - sum(around) / len(around)
    return places, removed


@pytest.mark.parametrize("border", ["valid", "replicate"])
@pytest.mark.parametrize("lam", [2.0, 10.0])
def test_equals_the_definition(border: str, lam: float) -> None:
    rng = np.random.default_rng(0)
    found_any = 0
    for sizes in ([(7, 5)], [(1, 9)], [(3, 3), (6, 8)], [(1, 1)]):
        count = sum(rows * cols for rows, cols in sizes) + 1
        evidence = evidence_of(rng.lognormal(0, 2.5, (4, count)), sizes)
        for one, scores in zip(find(evidence, lam, border), evidence.layer_scores.tolist(), strict=True):  # type: ignore[arg-type]
            expected, removed, first = [], 0.0, 0
            for number, (rows, cols) in enumerate(sizes):
                cells = [scores[first + row * cols : first + (row + 1) * cols] for row in range(rows)]
                places, part = by_hand(cells, lam, border)
                expected += [(number, *place) for place in places]
                removed += part
                first += rows * cols
            assert [(sink.grid, sink.row, sink.col) for sink in one.sinks] == expected
            assert one.removed == pytest.approx(removed / sum(scores), rel=1e-9, abs=1e-12)
            found_any += len(expected)
    assert found_any > 0


def test_place_share_and_border() -> None:
    """A corner, an edge and an inner spike on a grid of 4 x 6 cells of 20 x 20 pixels."""
    cells = np.full((4, 6), 0.001)
    cells[0, 0], cells[3, 3], cells[2, 1] = 0.4, 0.3, 0.2
    evidence = evidence_of(np.append(cells.ravel(), 0.0)[None], [(4, 6)])
    labels = np.zeros(25, dtype=bool)
    labels[2 * 6 + 1] = True
    (layer,) = find(evidence, labels=labels)
    assert layer.layer == 3
    assert [(one.row, one.col, one.edge, one.corner, one.evidence) for one in layer.sinks] == [
        (0, 0, True, True, False),
        (2, 1, False, False, True),
        (3, 3, True, False, False),
    ]
    assert layer.sinks[0].box == (0, 0, 20, 20)
    assert (layer.sinks[1].x, layer.sinks[1].y) == (1.5 / 6, 2.5 / 4)
    assert layer.sinks[2].share == pytest.approx(0.3 / cells.sum())
    (replicated,) = find(evidence, border="replicate")
    assert [(one.row, one.col, one.evidence) for one in replicated.sinks] == [(2, 1, None)]
    again = LayerSinks.from_dict(json.loads(json.dumps(asdict(layer))))
    assert again == layer


def test_summary() -> None:
    cells = np.full((4, 6), 0.001)
    spiked = cells.copy()
    spiked[0, 0], spiked[2, 2] = 0.5, 0.5
    pictures = [find(evidence_of(np.append(one.ravel(), 0.0)[None], [(4, 6)])) for one in (cells, spiked)]
    (summary,) = summarise(pictures)
    assert (summary.layer, summary.n_samples, summary.count, summary.present) == (3, 2, 1.0, 0.5)
    assert (summary.edge, summary.corner, summary.evidence) == (0.5, 0.5, None)
    assert summary.removed == pytest.approx((0.998 / spiked.sum()) / 2)
    (calm,) = summarise(pictures[:1])
    assert (calm.count, calm.edge, calm.removed) == (0, None, 0)


def test_a_layer_without_attention_loses_nothing() -> None:
    (layer,) = find(evidence_of(np.zeros((1, 13)), [(3, 4)]))
    assert (layer.sinks, layer.removed) == ((), 0.0)


def test_bad_input() -> None:
    evidence = evidence_of(np.ones((1, 13)), [(3, 4)])
    with pytest.raises(InvalidInputError, match="lam=0"):
        find(evidence, lam=0)
    with pytest.raises(InvalidInputError, match="border='round'"):
        find(evidence, border="round")  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match=r"\(3,\).*13 patches"):
        find(evidence, labels=np.zeros(3, dtype=bool))
    with pytest.raises(InvalidInputError, match="no picture"):
        summarise([])
    with pytest.raises(InvalidInputError, match="different layers"):
        summarise([find(evidence), find(evidence_of(np.ones((2, 13)), [(3, 4)]))])
