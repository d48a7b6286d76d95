"""The look's map against scipy, and the places read off it."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import scipy.ndimage
from PIL import Image

from vea_sdk import metrics
from vea_sdk.adapters.geometry import ImageLayout, PatchGrid
from vea_sdk.errors import InvalidInputError
from vea_sdk.evidence import Evidence, denoise, layout_map, look_map, normalize
from vea_sdk.evidence.regions import components, regions

RNG = np.random.default_rng(7)


def raster(rows: int, cols: int, first: int = 0) -> np.ndarray:
    return first + np.arange(rows * cols).reshape(rows, cols)


def whole(height: int, width: int, rows: int, cols: int) -> ImageLayout:
    grid = PatchGrid((0.0, 0.0, float(width), float(height)), raster(rows, cols))
    return ImageLayout((height, width), (rows * 14, cols * 14), grid.region, rows * cols, (grid,))


def evidence(layout: ImageLayout, scores: np.ndarray, **options: Any) -> Evidence:
    height, width = layout.original_size
    image = Image.fromarray(RNG.integers(0, 256, (height, width, 3), dtype=np.uint8))
    return Evidence(image, "why?", scores, layout, (3,), scores[None], **options)


def by_scipy(cells: np.ndarray, height: int, width: int) -> np.ndarray:
    """Denoised cells, upsampled and blurred by half a cell down and half a cell across."""
    rows, cols = cells.shape
    pixels = denoise(cells.astype(np.float64))[
        np.ix_(np.arange(height) * rows // height, np.arange(width) * cols // width)
    ]
    return scipy.ndimage.gaussian_filter(pixels, (height / rows / 2, width / cols / 2))


@pytest.mark.parametrize(("height", "width", "rows", "cols"), [(140, 210, 10, 15), (96, 60, 4, 10), (111, 17, 3, 1)])
def test_a_look_is_smoothed_by_half_a_cell_along_each_side(height: int, width: int, rows: int, cols: int) -> None:
    scores = (RNG.random(rows * cols) ** 4).astype(np.float32)
    found = look_map(scores, whole(height, width, rows, cols))
    expected = by_scipy(scores.reshape(rows, cols), height, width)
    np.testing.assert_allclose(found, (expected - expected.min()) / np.ptp(expected), atol=1e-5)


def test_each_grid_is_smoothed_by_its_own_cells() -> None:
    """A mosaic of 8 x 12 cells and a thumbnail of 2 x 3 over one picture; densities add up."""
    height, width = 80, 120
    region = (0.0, 0.0, 120.0, 80.0)
    grids = (PatchGrid(region, raster(8, 12)), PatchGrid(region, raster(2, 3, 96)))
    layout = ImageLayout((height, width), (80, 120), region, 102, grids)
    scores = (RNG.random(102) ** 4).astype(np.float32)
    fine, coarse = (by_scipy(scores[g.token_index], height, width) for g in grids)
    expected = fine / 100 + coarse / 1600  # a score lies evenly on its cell
    np.testing.assert_allclose(look_map(scores, layout), (expected - expected.min()) / np.ptp(expected), atol=1e-5)


def test_one_sigma_for_all_is_the_highlights_map() -> None:
    layout, scores = whole(90, 60, 6, 4), RNG.random(24).astype(np.float32)
    np.testing.assert_array_equal(look_map(scores, layout, sigma=0.3), layout_map(scores, layout, sigma=0.3))
    one = evidence(layout, scores)
    np.testing.assert_array_equal(one.look(sigma=0.3), one.map(sigma=0.3))
    with pytest.raises(InvalidInputError, match="sigma=-1"):
        one.look(sigma=-1)


def test_no_map_is_remembered_for_another_sigma() -> None:
    layout, scores = whole(90, 60, 6, 4), RNG.random(24).astype(np.float32)
    one = evidence(layout, scores)
    wide, narrow = one.map(), one.map(sigma=0.05)
    assert not np.array_equal(wide, narrow)
    np.testing.assert_array_equal(one.map(sigma=0.5), wide)
    np.testing.assert_array_equal(dataclasses.replace(one, sigma=0.05).map(), narrow)
    assert one.map() is one.map()  # the very one, read-only
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.sigma = 0.05  # type: ignore[misc]
    for array in (one.scores, one.layer_scores, one.map(), one.look()):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


@pytest.mark.parametrize("seed", range(20))
def test_the_peak_lies_in_or_beside_the_highest_cells(seed: int) -> None:
    """A run of hot cells among cold ones, as a line of text is looked at, wherever it lies."""
    random, rows, cols = np.random.default_rng(seed), 9, 13
    cells = (0.1 + 0.1 * random.random((rows, cols))).astype(np.float32)
    row, col, length = random.integers(rows), random.integers(cols - 3), random.integers(1, 4)
    cells[row, col : col + length] = 0.7 + 0.3 * random.random(length)
    y, x = np.unravel_index(look_map(cells.ravel(), whole(180, 260, rows, cols)).argmax(), (180, 260))
    assert abs(y // 20 - row) <= 1
    assert col - 1 <= x // 20 <= col + length


# --- the finest grid ------------------------------------------------------------------------------------------------


def test_the_grid_is_the_finest_over_the_whole_picture() -> None:
    region = (0.0, 0.0, 120.0, 80.0)
    fine, coarse = PatchGrid(region, raster(8, 12)), PatchGrid(region, raster(2, 3, 96))
    crop = PatchGrid((0.0, 0.0, 60.0, 40.0), raster(20, 20, 102))  # finer, but of a quarter
    for grids in ((fine, coarse, crop), (coarse, fine, crop), (crop, coarse, fine)):
        layout = ImageLayout((80, 120), (80, 120), region, 502, grids)
        assert layout.finest is fine
        assert evidence(layout, RNG.random(502).astype(np.float32)).grid == (8, 12)
    padded = PatchGrid((-50.0, -100.0, 170.0, 180.0), raster(3, 3))
    cut = ImageLayout(
        (80, 120), (80, 120), padded.region, 9 + 12, (padded, PatchGrid((0, 2, 120, 78), raster(3, 4, 9)))
    )
    assert cut.grid_size == (3, 4)  # a line of padding that was cut off does not make it partial


# --- regions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("density", [0.0, 0.1, 0.3, 0.5, 0.6, 0.9, 1.0])
@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (17, 23), (64, 64)])
def test_components_are_scipys(shape: tuple[int, int], density: float) -> None:
    mask = np.random.default_rng(3).random(shape) < density
    expected, count = scipy.ndimage.label(mask, np.ones((3, 3)))
    found = components(mask)
    assert found.max() == count
    pairs = set(zip(found.ravel().tolist(), expected.ravel().tolist(), strict=True))
    assert len(pairs) == count + (not mask.all())  # one number for each of theirs


def two_spots() -> Evidence:
    """Two spots on 100 x 160 pixels of 10 x 16 cells: a wide one of six cells, and a sharp one, four times as high."""
    cells = np.full((10, 16), 1e-3, np.float32)
    cells[1:3, 2:5] = 1.0
    cells[7, 12] = 4.0
    return evidence(whole(100, 160, 10, 16), cells.ravel(), lam=1e9)


def test_boxes_are_ordered_by_their_share() -> None:
    one = two_spots()
    first, second = one.boxes(threshold=0.2)
    assert metrics.iou(first.box, (20, 10, 50, 30)) > 0.5
    assert metrics.iou(second.box, (120, 70, 130, 80)) > 0.2
    assert first.share > second.share
    assert second.peak == pytest.approx(1, abs=0.01)
    assert first.peak < 0.6
    for region in (first, second):  # by hand: a cell's score is spread evenly over its box
        covered = [
            max(0, min(x1, region.box[2]) - max(x0, region.box[0]))
            * max(0, min(y1, region.box[3]) - max(y0, region.box[1]))
            for x0, y0, x1, y1 in one.layout.token_boxes()
        ]
        share = float((one.scores * np.array(covered) / 100).sum() / one.scores.sum())
        assert region.share == pytest.approx(share, abs=1e-6)
    x, y = one.point()  # type: ignore[misc]
    assert metrics.pointing_game((x, y), [(120, 70, 130, 80)]) == 1  # at half of the maximum only the sharp one is left


def test_the_region_of_the_peak_is_always_there() -> None:
    one = two_spots()
    assert [r.peak for r in one.boxes(threshold=0.2, most=1)] == [max(r.peak for r in one.boxes(threshold=0.2))]
    assert len(one.boxes(threshold=1.0)) == 1  # smaller than a cell, and kept


def test_a_box_is_what_it_shows_and_parts_smaller_than_a_cell_are_left_out() -> None:
    """On 64 x 96 pixels of cells of 8 x 8, so that every pixel is sampled. The peak lies in the smallest part."""
    look = np.zeros((64, 96), np.float32)
    parts = {"wide": (8, 20, 31, 29), "a cell": (40, 8, 56, 12), "less": (70, 40, 77, 49), "peak": (90, 60, 93, 64)}
    for height, (x0, y0, x1, y1) in zip((0.6, 0.7, 0.8, 1.0), parts.values(), strict=True):
        look[y0:y1, x0:x1] = height
    found = regions(look, np.ones(96, np.float32), whole(64, 96, 8, 12))
    assert {region.box: region.peak for region in found} == {
        parts["wide"]: pytest.approx(0.6),
        parts["a cell"]: pytest.approx(0.7),
        parts["peak"]: 1.0,
    }


def test_a_constant_map_has_no_place() -> None:
    flat = evidence(whole(60, 60, 4, 4), np.full(16, 0.25, np.float32))
    assert flat.boxes() == []
    assert flat.point() is None
    assert metrics.pointing_game(flat.point(), [(0, 0, 60, 60)]) == 0


@pytest.mark.parametrize("threshold", [2, -0.1, float("nan"), True, "half"])
def test_a_threshold_that_cannot_be(threshold: Any) -> None:
    with pytest.raises(InvalidInputError, match="threshold="):
        two_spots().boxes(threshold=threshold)


@pytest.mark.parametrize("most", [0, -1, 1.5, True])
def test_a_number_of_regions_that_cannot_be(most: Any) -> None:
    with pytest.raises(InvalidInputError, match=f"most={most}"):
        two_spots().boxes(most=most)


@pytest.mark.parametrize("seed", range(10))
def test_every_box_lies_in_the_picture_and_holds_its_share(seed: int) -> None:
    """Padded and tiled layouts too; shares of boxes that do not overlap add up to 1 at the most."""
    random = np.random.default_rng(seed)
    padded = PatchGrid((-20.0, -7.0, 140.0, 113.0), raster(8, 9))
    layout = ImageLayout(
        (100, 130), (80, 90), padded.region, 72 + 6, (padded, PatchGrid((0, 0, 130, 100), raster(2, 3, 72)))
    )
    one = evidence(layout, (random.random(78) ** 8).astype(np.float32))
    found = regions(one.look(), one.scores, layout, 0.3, 99)
    assert found
    for region in found:
        x0, y0, x1, y1 = region.box
        assert 0 <= x0 < x1 <= 130
        assert 0 <= y0 < y1 <= 100
        assert 0 < region.share <= 1
    assert [r.share for r in found] == sorted((r.share for r in found), reverse=True)


# --- parts ----------------------------------------------------------------------------------------------------------


def with_heads() -> Evidence:
    heads = RNG.random((2, 3, 24)).astype(np.float32)
    layers = heads.mean(1)
    layout = whole(60, 40, 6, 4)
    image = Image.new("RGB", (40, 60))
    stats = {"image_mass": np.array([0.2, 0.4], np.float32)}
    return Evidence(image, None, layers.mean(0), layout, (5, 9), layers, stats=stats, head_scores=heads)


def test_one_layer_and_one_head() -> None:
    one = with_heads()
    layer = one.of_layer(9)
    np.testing.assert_array_equal(layer.scores, one.layer_scores[1])
    assert layer.layers == (9,)
    assert layer.stats["image_mass"].tolist() == [one.stats["image_mass"][1]]
    head = one.of_head(9, 2)
    np.testing.assert_array_equal(head.scores, one.head_scores[1, 2])  # type: ignore[index]
    np.testing.assert_array_equal(layer.of_head(9, 2).scores, head.scores)
    np.testing.assert_array_equal(head.look(), look_map(head.scores, one.layout))
    np.testing.assert_allclose(normalize(layer.scores), normalize(one.layer_scores[1]))


def test_a_layer_or_head_that_is_not_there() -> None:
    one = with_heads()
    with pytest.raises(InvalidInputError, match=r"layer 7 was not read.*\[5, 9\]"):
        one.of_layer(7)
    for head in (3, -1, True):
        with pytest.raises(InvalidInputError, match=f"head={head} is none of the 3 heads"):
            one.of_head(5, head)
    with pytest.raises(InvalidInputError, match="heads=True"):
        dataclasses.replace(one, head_scores=None).of_head(5, 0)


def test_the_score_at_a_point() -> None:
    one = with_heads()
    assert one.score_at(0, 0) == one.scores[0]
    assert one.score_at(39.9, 59.9) == one.scores[23]
    assert one.score_at(15, 25) == one.scores[9]
    with pytest.raises(InvalidInputError, match=r"\(40, 0\) lies outside"):
        one.score_at(40, 0)


def test_a_repr_holds_no_arrays() -> None:
    assert repr(with_heads()) == "Evidence(6x4 patches on 40x60 pixels, layers [5, 9])"
    assert len(repr(two_spots())) < 120


# --- metrics --------------------------------------------------------------------------------------------------------


def test_the_pointing_game() -> None:
    boxes = [(0, 0, 10, 10), (20, 20, 30, 30)]
    assert metrics.pointing_game((5, 5), boxes) == metrics.pointing_game((29.9, 20), boxes) == 1
    assert metrics.pointing_game((10, 5), boxes) == metrics.pointing_game((15, 15), boxes) == 0
    assert metrics.pointing_game((5, 5), []) == 0


def test_iou_counts_pixels() -> None:
    for seed in range(20):
        random = np.random.default_rng(seed)
        a, b = ((x, y, x + w, y + h) for x, y, w, h in random.integers(1, 15, (2, 4)).tolist())
        grids = []
        for x0, y0, x1, y1 in (a, b):
            grid = np.zeros((32, 32), bool)
            grid[y0:y1, x0:x1] = True
            grids.append(grid)
        expected = (grids[0] & grids[1]).sum() / (grids[0] | grids[1]).sum()
        assert metrics.iou(a, b) == metrics.iou(b, a) == pytest.approx(expected)


@pytest.mark.parametrize("box", [(0, 0, 0, 5), (3, 3, 1, 9), (0, 0, float("nan"), 1), (1, 2, 3)])
def test_what_is_no_box(box: Any) -> None:
    with pytest.raises(InvalidInputError, match="box"):
        metrics.iou(box, (0, 0, 1, 1))
    with pytest.raises(InvalidInputError, match="box"):
        metrics.pointing_game((0, 0), [box])
