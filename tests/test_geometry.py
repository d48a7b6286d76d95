"""The geometry types and the canvas, against arithmetic done by hand or by brute force."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.image_transforms import get_resize_output_image_size

from vea_sdk.adapters import ImageLayout, PatchGrid
from vea_sdk.adapters.canvas import Canvas, raster, tile_mosaic
from vea_sdk.errors import GeometryError, InvalidInputError

side = st.integers(1, 400)


def layout(**changes: object) -> ImageLayout:
    grid = PatchGrid((0.0, 0.0, 40.0, 30.0), raster(3, 4))
    fields = {
        "original_size": (30, 40),
        "input_size": (60, 80),
        "input_region": (0.0, 0.0, 40.0, 30.0),
        "n_tokens": 12,
        "grids": (grid,),
    }
    return ImageLayout(**(fields | changes))


# --- PatchGrid ---------------------------------------------------------------------------------------------


def test_boxes_of_a_grid() -> None:
    grid = PatchGrid((10.0, -4.0, 16.0, 4.0), raster(2, 3))
    assert (grid.rows, grid.cols) == (2, 3)
    boxes = grid.boxes()
    assert boxes.shape == (2, 3, 4)
    np.testing.assert_array_equal(boxes[0, 0], [10, -4, 12, 0])
    np.testing.assert_array_equal(boxes[1, 2], [14, 0, 16, 4])


@settings(deadline=None)
@given(st.integers(1, 30), st.integers(1, 30), side, side)
def test_cells_tile_the_region_without_gaps(rows: int, cols: int, height: int, width: int) -> None:
    boxes = PatchGrid((0.0, 0.0, float(width), float(height)), raster(rows, cols)).boxes()
    np.testing.assert_array_equal(boxes[:, 1:, 0], boxes[:, :-1, 2])
    np.testing.assert_array_equal(boxes[1:, :, 1], boxes[:-1, :, 3])
    np.testing.assert_allclose(boxes[-1, -1, 2:], [width, height])
    areas = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    np.testing.assert_allclose(areas, height * width / (rows * cols))


def test_a_grid_cannot_be_changed_from_outside() -> None:
    index = raster(2, 2)
    grid = PatchGrid((0.0, 0.0, 1.0, 1.0), index)
    index[0, 0] = 9
    assert grid.token_index[0, 0] == 0
    with pytest.raises(ValueError, match="read-only"):
        grid.token_index[0, 0] = 9


@pytest.mark.parametrize("region", [(0, 0, 0, 5), (0, 5, 5, 5), (3, 0, 1, 5), (0, 0, float("nan"), 1)], ids=str)
def test_a_grid_needs_a_region(region: tuple[float, float, float, float]) -> None:
    with pytest.raises(GeometryError, match="region must be"):
        PatchGrid(region, raster(2, 2))


@pytest.mark.parametrize("index", [np.arange(4), np.empty((0, 3), int), np.zeros((1, 1, 1), int)])
def test_a_grid_needs_rows_and_columns(index: np.ndarray) -> None:
    with pytest.raises(GeometryError, match=r"token_index of \[rows, cols\]"):
        PatchGrid((0, 0, 1, 1), index)


# --- ImageLayout -------------------------------------------------------------------------------------------


def test_token_boxes_in_both_spaces() -> None:
    index = np.array([[1, 2], [4, 5]])  # tokens 0 and 3 are separators
    grid = PatchGrid((-10.0, 0.0, 30.0, 20.0), index)
    picture = layout(
        original_size=(20, 20), input_size=(40, 80), input_region=(-10.0, 0.0, 30.0, 20.0), n_tokens=6, grids=(grid,)
    )
    assert picture.grid_size == (2, 2)
    original = picture.token_boxes()
    assert original.shape == (6, 4)
    assert np.isnan(original[[0, 3]]).all()
    np.testing.assert_array_equal(original[2], [10, 0, 30, 10])
    np.testing.assert_array_equal(picture.token_boxes("input")[2], [40, 0, 80, 20])
    np.testing.assert_array_equal(picture.token_boxes("input")[4], [0, 20, 40, 40])


def test_token_boxes_on_a_canvas_of_unequal_scales() -> None:
    """A region 40 wide and 30 high from (-10, 5) on, on a canvas of 200 x 60: five canvas pixels per pixel along x, two
    along y. In canvas pixels the cells are the canvas's own, 50 wide and 20 high."""
    region = (-10.0, 5.0, 30.0, 35.0)
    grid = PatchGrid(region, raster(3, 4))
    picture = layout(original_size=(40, 30), input_size=(60, 200), input_region=region, grids=(grid,))
    of_canvas = [(50 * col, 20 * row, 50 * col + 50, 20 * row + 20) for row in range(3) for col in range(4)]
    np.testing.assert_allclose(picture.token_boxes("input"), of_canvas, rtol=0, atol=1e-12)


def test_the_finest_grid_is_of_the_whole_picture() -> None:
    """Not a finer one of its upper half; but one to whose side a line of cells is missing."""
    grids = [
        PatchGrid((0.0, 0.0, 40.0, 30.0), raster(3, 4)),
        PatchGrid((0.0, 0.0, 40.0, 15.0), raster(6, 16, first_token=12)),
        PatchGrid((0.0, 0.0, 38.0, 30.0), raster(6, 7, first_token=108)),
    ]
    assert layout(n_tokens=108, grids=tuple(grids[:2])).grid_size == (3, 4)
    assert layout(n_tokens=150, grids=tuple(grids)).grid_size == (6, 7)


def test_an_unknown_space_is_named() -> None:
    with pytest.raises(InvalidInputError, match="'patch'"):
        layout().token_boxes("patch")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_tokens": 11}, "0 to 11, but the picture has 11 tokens"),
        ({"grids": (PatchGrid((0, 0, 1, 1), raster(3, 4, first_token=-1)),)}, "tokens -1 to 10"),
        ({"grids": (PatchGrid((0, 0, 1, 1), np.array([[0, 1], [1, 2]])),)}, "Token 1 fills more than one cell"),
        ({"grids": ()}, "at least one grid"),
        ({"original_size": (0, 40)}, r"original_size must be .* got \(0, 40\)"),
        ({"input_size": (60, -1)}, "input_size"),
        ({"input_region": (0.0, 0.0, 0.0, 1.0)}, "input_region"),
    ],
)
def test_contradictions_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(GeometryError, match=message):
        layout(**changes)


def test_two_grids_may_not_share_a_token() -> None:
    grids = (PatchGrid((0, 0, 1, 1), raster(2, 2)), PatchGrid((0, 0, 1, 1), raster(1, 1, first_token=3)))
    with pytest.raises(GeometryError, match="Token 3"):
        layout(grids=grids)


# --- Canvas ------------------------------------------------------------------------------------------------


def test_a_chain_of_resize_and_center_crop() -> None:
    canvas = Canvas.of((60, 100)).resized_to({"shortest_edge": 48})
    assert canvas.size == (48, 80)
    canvas = canvas.center_cropped(48, 48)
    assert canvas.size == (48, 48)
    np.testing.assert_allclose(canvas.region, (20, 0, 80, 60))


def test_a_shortest_edge_is_that_of_transformers() -> None:
    for height, width, edge in product(range(31, 400, 23), range(29, 400, 17), (24, 35, 336)):
        picture = np.empty((height, width, 3), np.uint8)
        expected = get_resize_output_image_size(picture, edge, False, input_data_format="channels_last")
        assert Canvas.of((height, width)).resized_to({"shortest_edge": edge}).size == expected


def test_padding_overhangs_the_picture() -> None:
    canvas = Canvas.of((31, 200)).padded_to_square()
    assert canvas == Canvas((0.0, -84.0, 200.0, 116.0), (200, 200))
    assert Canvas.of((200, 31)).padded_to_square().region == (-84.0, 0.0, 116.0, 200.0)


def test_a_crop_larger_than_the_canvas_pads() -> None:
    assert Canvas.of((4, 6)).center_cropped(8, 6).region == (0.0, -2.0, 6.0, 6.0)


@settings(deadline=None)
@given(side, side, side, side, st.integers(-50, 50), st.integers(-50, 50))
def test_crops_are_windows_in_canvas_pixels(h: int, w: int, new_h: int, new_w: int, top: int, left: int) -> None:
    canvas = Canvas.of((h, w)).resized(new_h, new_w).cropped(top, left, 7, 5)
    x, y = w / new_w, h / new_h
    np.testing.assert_allclose(canvas.region, (left * x, top * y, (left + 5) * x, (top + 7) * y), atol=1e-9)


def test_pixels_beyond_the_last_whole_patch_belong_to_no_token() -> None:
    grid = Canvas.of((50, 33)).patches(8, 8, first_token=1)
    assert (grid.rows, grid.cols) == (6, 4)
    assert grid.region == (0.0, 0.0, 32.0, 48.0)
    assert grid.token_index[0, 0] == 1


def test_raster_with_room_for_line_ends() -> None:
    np.testing.assert_array_equal(raster(2, 3, first_token=5, row_stride=4), [[5, 6, 7], [9, 10, 11]])


def test_tile_mosaic_puts_tiles_side_by_side() -> None:
    expected = [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
    np.testing.assert_array_equal(tile_mosaic(2, 2, 2, 2), expected)
    np.testing.assert_array_equal(tile_mosaic(1, 2, 1, 3), [[0, 1, 2, 3, 4, 5]])
