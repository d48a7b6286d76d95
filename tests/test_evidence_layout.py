"""Maps of whole layouts (tiles, crops, padding) and the Evidence result."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from vea_sdk.adapters.geometry import ImageLayout, PatchGrid
from vea_sdk.errors import GeometryError, InvalidInputError, NaNAttentionError
from vea_sdk.evidence import Evidence, build_map, layout_map, normalize
from vea_sdk.evidence.canvas import input_canvas


def raster(rows: int, cols: int, first: int = 0) -> np.ndarray:
    return first + np.arange(rows * cols).reshape(rows, cols)


def whole(height: int, width: int, rows: int, cols: int) -> ImageLayout:
    grid = PatchGrid((0.0, 0.0, float(width), float(height)), raster(rows, cols))
    return ImageLayout((height, width), (rows * 14, cols * 14), grid.region, rows * cols, (grid,))


def random_scores(n: int, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).random(n) ** 4).astype(np.float32)


def density_by_brute_force(scores: np.ndarray, layout: ImageLayout, fine: int) -> np.ndarray:
    """Each token's score spread over its box, sampled on ``fine`` × ``fine`` points per pixel, averaged per pixel."""
    height, width = layout.original_size
    y = (np.arange(height * fine) + 0.5) / fine
    x = (np.arange(width * fine) + 0.5) / fine
    density = np.zeros((height * fine, width * fine))
    for score, (x0, y0, x1, y1) in zip(scores, layout.token_boxes(), strict=True):
        if np.isnan(x0):
            continue
        inside = ((y >= y0) & (y < y1))[:, None] & ((x >= x0) & (x < x1))[None, :]
        density += inside * (score / ((x1 - x0) * (y1 - y0)))
    return density.reshape(height, fine, width, fine).mean((1, 3))


@pytest.mark.parametrize(("height", "width", "rows", "cols"), [(336, 336, 24, 24), (101, 37, 7, 5), (3, 200, 2, 9)])
def test_one_whole_grid_is_build_map(height: int, width: int, rows: int, cols: int) -> None:
    scores = random_scores(rows * cols)
    expected = build_map(scores, (rows, cols), (height, width), 2.0, 0.3)
    np.testing.assert_array_equal(layout_map(scores, whole(height, width, rows, cols), 2.0, 0.3), expected)


@pytest.mark.parametrize("sigma", [0.0, 0.3])
def test_grids_add_up_as_densities(sigma: float) -> None:
    """A padded thumbnail, a crop with fractional edges, a mosaic of 2 x 3 cells, and a separator."""
    grids = (
        PatchGrid((0.0, 0.0, 30.0, 20.0), raster(2, 3)),
        PatchGrid((-5.0, -10.0, 35.0, 30.0), raster(4, 4, 7)),
        PatchGrid((4.25, 2.5, 24.25, 18.5), raster(4, 5, 23)),
    )
    layout = ImageLayout((20, 30), (40, 40), (-5.0, -10.0, 35.0, 30.0), 43, grids)
    scores = random_scores(43)
    density = density_by_brute_force(scores, layout, fine=4)  # all edges lie on quarters of a pixel
    if sigma:
        density = gaussian_filter(density, sigma * 20, mode="reflect", truncate=4.0)
    result = layout_map(scores.astype(np.float64), layout, sigma=sigma, denoise=False)
    np.testing.assert_allclose(result, normalize(density), atol=1e-6 if sigma == 0 else 1e-5)


def test_denoising_is_per_grid() -> None:
    grids = (
        PatchGrid((0.0, 0.0, 40.0, 40.0), raster(4, 4)),
        PatchGrid((0.0, 0.0, 40.0, 40.0), raster(2, 2, 16)),
    )
    layout = ImageLayout((40, 40), (56, 56), (0.0, 0.0, 40.0, 40.0), 20, grids)
    scores = np.full(20, 0.01, dtype=np.float32)
    scores[0] = 1.0  # a sink in the fine grid
    scores[19] = 0.05  # no sink
    calm = scores.copy()
    calm[0] = 0.01
    np.testing.assert_allclose(layout_map(scores, layout), layout_map(calm, layout), atol=1e-5)
    assert np.abs(layout_map(scores, layout, denoise=False) - layout_map(calm, layout)).max() > 0.1


def test_padding_is_cut_and_the_input_canvas_keeps_it() -> None:
    """A wide picture padded to a square: the tokens of the padding show only on the canvas the model saw."""
    region = (0.0, -10.0, 40.0, 30.0)
    layout = ImageLayout((20, 40), (56, 56), region, 16, (PatchGrid(region, raster(4, 4)),))
    scores = np.zeros(16, dtype=np.float32)
    scores[0] = 1.0  # top left, in the padding
    assert not layout_map(scores, layout, denoise=False, smooth=False).any()
    seen = layout_map(scores, layout, denoise=False, smooth=False, canvas="input")
    assert seen.shape == (56, 56)
    expected = np.zeros((56, 56))
    expected[:14, :14] = 1
    np.testing.assert_array_equal(seen, expected)
    every = random_scores(16)
    np.testing.assert_array_equal(layout_map(every, layout, canvas="input"), build_map(every, (4, 4), (56, 56)))


def test_input_canvas_shows_parts_of_pixels() -> None:
    """Of a ramp along both sides, a region between whole pixels, twice as large: pixel i shows what lies at
    start + (i + 0.5) / 2."""
    y, x = np.mgrid[0:80, 0:120]
    ramp = Image.fromarray(np.stack([2 * x, 3 * y, x + y], -1).astype(np.uint8))
    region = (10.5, 20.25, 60.5, 50.25)
    cut = ImageLayout((80, 120), (60, 100), region, 4, (PatchGrid(region, raster(2, 2)),))
    shown = np.asarray(input_canvas(ramp, cut)).astype(float)
    right, down = 10.5 + (np.arange(100) + 0.5) / 2 - 0.5, 20.25 + (np.arange(60) + 0.5) / 2 - 0.5
    assert np.abs(shown[5:-5, 5:-5, 0] - 2 * right[5:-5]).max() <= 1
    assert np.abs(shown[5:-5, 5:-5, 1] - 3 * down[5:-5, None]).max() <= 1


def test_input_canvas_shows_the_region() -> None:
    pixels = np.zeros((20, 40, 3), dtype=np.uint8)
    pixels[:, 20:] = (0, 200, 0)
    pixels[:, :20] = (200, 0, 0)
    image = Image.fromarray(pixels)
    region = (0.0, -10.0, 40.0, 30.0)
    padded = ImageLayout((20, 40), (80, 80), region, 1, (PatchGrid(region, raster(1, 1)),))
    canvas = np.asarray(input_canvas(image, padded))
    assert canvas.shape == (80, 80, 3)
    assert not canvas[:17].any()
    assert canvas[40, 5].tolist() == [200, 0, 0]
    assert canvas[40, 75].tolist() == [0, 200, 0]
    region = (22.0, 4.0, 36.0, 18.0)
    cropped = ImageLayout((20, 40), (28, 28), region, 1, (PatchGrid(region, raster(1, 1)),))
    assert (np.asarray(input_canvas(image, cropped)) == [0, 200, 0]).all()


def test_layout_map_takes_torch_and_reports_errors() -> None:
    layout = whole(30, 40, 3, 4)
    scores = random_scores(12)
    from_torch = layout_map(torch.from_numpy(scores), layout)
    assert isinstance(from_torch, torch.Tensor)
    np.testing.assert_array_equal(from_torch.numpy(), layout_map(scores, layout))
    with pytest.raises(GeometryError, match=r"13 scores.*12 tokens"):
        layout_map(random_scores(13), layout)
    with pytest.raises(InvalidInputError, match="canvas='screen'"):
        layout_map(scores, layout, canvas="screen")  # type: ignore[arg-type]
    scores[3] = np.nan
    with pytest.raises(NaNAttentionError):
        layout_map(scores, layout)


def evidence(layout: ImageLayout | None = None, **changes: Any) -> Evidence:
    layout = layout or whole(60, 80, 3, 4)
    height, width = layout.original_size
    rows = np.stack([random_scores(layout.n_tokens, seed) for seed in (1, 2)])
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    fields: dict[str, Any] = {
        "image": Image.fromarray(pixels),
        "question": "What is the total?",
        "scores": rows.mean(0),
        "layout": layout,
        "layers": (18, 22),
        "layer_scores": rows,
    }
    return Evidence(**(fields | changes))


class TestEvidence:
    def test_map_and_pictures(self) -> None:
        shown = evidence(sigma=0.1, lam=3.0, alpha=0.25)
        assert shown.grid == (3, 4)
        pixel_map = shown.map()
        np.testing.assert_array_equal(pixel_map, build_map(shown.scores, (3, 4), (60, 80), 3.0, 0.1))
        assert pixel_map.dtype == np.float32
        assert shown.map() is pixel_map
        with pytest.raises(ValueError, match="read-only"):
            pixel_map[0, 0] = 1
        expected = np.rint((0.25 + 0.75 * pixel_map.astype(np.float64))[..., None] * np.asarray(shown.image))
        assert np.abs(np.asarray(shown.highlight()).astype(int) - expected).max() <= 1
        assert np.array_equal(np.asarray(shown.highlight(alpha=1.0)), np.asarray(shown.image))
        assert shown.highlight(canvas="input").size == shown.overlay(canvas="input").size == (56, 42)
        assert shown.overlay().size == (80, 60)

    def test_boxes_follow_the_canvas(self) -> None:
        shown = evidence()
        framed = np.asarray(shown.overlay("input", boxes=[(20, 20, 60, 40)])).astype(int)
        changed = np.abs(framed - np.asarray(shown.overlay("input")).astype(int)).sum(-1) > 0
        ys, xs = np.nonzero(changed)
        assert (xs.min(), xs.max() + 1, ys.min(), ys.max() + 1) == (14, 42, 14, 28)

    def test_png_for_notebooks(self) -> None:
        shown = evidence()
        with Image.open(io.BytesIO(shown._repr_png_())) as image:
            assert np.array_equal(np.asarray(image), np.asarray(shown.overlay()))

    def test_top_patches(self) -> None:
        scores = np.array([0, 5, 5, 1, 9, 0, 0, 5, 0, 0, 0, 2], dtype=np.float32)
        shown = evidence(scores=scores)
        order = [4, 1, 2, 7, 11, 3, 0, 5, 6, 8, 9, 10]
        boxes = [tuple(box) for box in shown.layout.token_boxes()[order].tolist()]
        assert shown.top_patches(12) == boxes
        assert shown.top_patches(3) == boxes[:3]
        assert shown.top_patches(0) == []
        for k in (13, -1):
            with pytest.raises(InvalidInputError, match=rf"k={k}.* 12"):
                shown.top_patches(k)

    def test_top_patches_are_clipped_and_skip_what_shows_nothing(self) -> None:
        region = (0.0, -15.0, 40.0, 25.0)
        layout = ImageLayout((15, 40), (56, 56), region, 18, (PatchGrid(region, raster(4, 4)),))
        scores = np.arange(18, dtype=np.float32)  # 16 and 17 are separators, rows 0 and 3 only touch padding
        shown = evidence(layout, scores=scores)
        boxes = shown.top_patches(8)
        assert boxes[0] == (30.0, 5.0, 40.0, 15.0)
        assert boxes[-1] == (0.0, 0.0, 10.0, 5.0)
        with pytest.raises(InvalidInputError, match=r"k=9.* 8"):
            shown.top_patches(9)

    def test_to_dict_is_json_and_keeps_every_digit(self) -> None:
        shown = evidence(stats={"mass": np.float32(0.25), "entropy": torch.tensor([1.5, 2.0]), "note": ("a", None)})
        back = json.loads(json.dumps(shown.to_dict(), allow_nan=False))
        assert np.array_equal(np.array(back["scores"], dtype=np.float32), shown.scores)
        assert np.array_equal(np.array(back["layer_scores"], dtype=np.float32), shown.layer_scores)
        assert back["grid"] == [3, 4]
        assert back["layers"] == [18, 22]
        assert back["stats"] == {"mass": 0.25, "entropy": [1.5, 2.0], "note": ["a", None]}
        assert back["layout"]["grids"][0]["token_index"] == raster(3, 4).tolist()

    def test_nan_names_the_layers(self) -> None:
        rows = np.ones((2, 12), dtype=np.float32)
        rows[1, 3] = np.nan
        with pytest.raises(NaNAttentionError, match=r"layers \[22\] of \[18, 22\]"):
            evidence(layer_scores=rows, scores=rows.mean(0))
        with pytest.raises(NaNAttentionError, match="no single layer"):
            evidence(scores=rows.mean(0))

    def test_parts_must_fit(self) -> None:
        with pytest.raises(GeometryError, match=r"\(11,\).*12 tokens"):
            evidence(scores=np.ones(11))
        with pytest.raises(GeometryError, match=r"3 layers"):
            evidence(layers=(1, 2, 3))
        with pytest.raises(GeometryError, match=r"9x9.*60x80"):
            evidence(image=Image.new("RGB", (9, 9)))
