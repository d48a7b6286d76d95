"""Views of a picture: their pixels by the formulas, and the way back to the original's pixels."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

import vea_sdk as vea
from vea_sdk.adapters import ImageLayout, PatchGrid
from vea_sdk.evidence import Evidence
from vea_sdk.views.repairing import flat_field, levels, local_levels, looked_at


def noise(height: int, width: int, seed: int = 0) -> Image.Image:
    """A picture of which every part is unlike every other."""
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))


def evidence(image: Image.Image, rows: int = 14, cols: int = 14, scores: np.ndarray | None = None) -> Evidence:
    size = (image.height, image.width)
    box = (0.0, 0.0, float(image.width), float(image.height))
    grid = PatchGrid(box, np.arange(rows * cols).reshape(rows, cols))
    layout = ImageLayout(size, (224, 224), box, rows * cols, (grid,))
    given = np.random.default_rng(1).random(rows * cols).astype(np.float32) if scores is None else scores
    return Evidence(image, "?", given, layout, (2,), given[None])


@pytest.mark.parametrize(("height", "width"), [(672, 672), (1000, 400), (231, 977)])
def test_windows_show_their_box_and_cover_the_picture(height: int, width: int) -> None:
    image = noise(height, width)
    made = vea.views.windows()(image)
    assert len(made) == 54
    covered = np.zeros((height, width), bool)
    for number, view in enumerate(made):
        x0, y0, x1, y1 = (int(value) for value in view.box)
        shown = np.asarray(image)[y0:y1, x0:x1]
        assert np.array_equal(np.asarray(view.image), shown)
        size = [0.9] * 4 + [0.8] * 9 + [0.7] * 16 + [0.6] * 25
        assert shown.shape[:2] == (round(size[number] * height), round(size[number] * width))
        covered[y0:y1, x0:x1] = True
    assert covered.all()
    assert len({view.box for view in made}) == 54


@pytest.mark.parametrize("box", [(100.0, 200.0, 400.0, 500.0), (0.0, 0.0, 604.0, 604.0), (372.0, 0.0, 672.0, 300.0)])
def test_windows_around_one_move_by_a_share_of_its_side(box: tuple[float, ...]) -> None:
    image = noise(672, 672)
    made = vea.views.around(box)(image)
    assert len(made) == 10
    side = box[2] - box[0]
    for view in made[:8]:
        assert view.box[2] - view.box[0] == side
        for at, was in zip(view.box[:2], box[:2], strict=True):
            room = 672 - side
            assert at in {np.clip(round(was + move * 0.07 * side), 0, room) for move in (-1, 0, 1)}
    assert [view.box[2] - view.box[0] for view in made[8:]] == [round(0.93 * side), min(672, round(1.07 * side))]
    assert all(view.box[0] >= 0 and view.box[2] <= 672 and view.box[1] >= 0 and view.box[3] <= 672 for view in made)


@pytest.mark.parametrize("seed", range(3))
def test_evidence_of_a_window_lies_where_its_pixels_are(seed: int) -> None:
    """Also where the window was enlarged before the model saw it."""
    image = noise(400, 640)
    rng = np.random.default_rng(seed)
    view = vea.views.windows()(image)[int(rng.integers(54))]
    x0, y0, x1, y1 = view.box
    enlarged = view.image.resize((640, 400))
    found = evidence(enlarged, 8, 10)
    back = view.on_original(found, image)
    assert back.image is image
    assert back.scores is not None
    for small, large in zip(found.layout.token_boxes(), back.layout.token_boxes(), strict=True):
        expected = [x0 + small[0] * (x1 - x0) / 640, y0 + small[1] * (y1 - y0) / 400]
        expected += [x0 + small[2] * (x1 - x0) / 640, y0 + small[3] * (y1 - y0) / 400]
        assert np.allclose(large, expected)
    outside = np.ones((400, 640), bool)
    outside[int(y0) : int(y1), int(x0) : int(x1)] = False
    highest = np.unravel_index(back.look().argmax(), (400, 640))
    assert not outside[highest]


def test_shifts_are_rolls_by_shares_of_a_patch_and_map_back() -> None:
    image = noise(672, 672)
    seen = evidence(image)
    made = vea.views.shifts()(image, seen)
    moves = [(0, 0), (8, 4), (-8, -4), (-6, 9), (6, -9)]
    for view, (dx, dy) in zip(made, moves, strict=True):
        assert np.array_equal(np.asarray(view.image), np.roll(np.asarray(image), (dy, dx), (0, 1)))
        at = view.on_original(evidence(view.image), image).layout.token_boxes()[0]
        assert np.allclose(at, [-dx, -dy, 48 - dx, 48 - dy])
    with pytest.raises(vea.VeaError, match="evidence="):
        vea.views.shifts()(image)


def small(pixels: np.ndarray) -> np.ndarray:
    """A quarter of the size, by the mean of 4 x 4."""
    light = pixels.mean(-1)
    return light.reshape(light.shape[0] // 4, 4, light.shape[1] // 4, 4).mean((1, 3))


def large(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    shown = Image.fromarray(values.astype(np.float32)).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(shown)[..., None]


@pytest.mark.parametrize("seed", range(3))
def test_light_is_evened_out_as_scipy_would(seed: int) -> None:
    page = vea.tiny.glare(vea.tiny.draw(seed)[0].image, seed)
    pixels = np.asarray(page, np.float32)
    low, high = np.percentile(pixels.mean(-1), [2, 98])
    assert np.allclose(levels(pixels), 25 + 220 * (pixels - low) / (high - low), atol=1e-2)
    reduced, size = small(pixels), pixels.shape[:2]
    light = ndimage.gaussian_filter(ndimage.maximum_filter(reduced, 9), 10)
    assert np.allclose(flat_field(pixels), 240 * pixels / np.maximum(8, large(light, size)), atol=0.05)
    lo = large(ndimage.gaussian_filter(ndimage.minimum_filter(reduced, 28), 10), size)
    hi = large(ndimage.gaussian_filter(ndimage.maximum_filter(reduced, 28), 10), size)
    assert np.allclose(local_levels(pixels), 25 + 220 * (pixels - lo) / np.maximum(12, hi - lo), atol=0.5)


def test_the_window_looked_at_is_what_is_connected_with_the_peak() -> None:
    """Patches at or above a fifth of the peak that touch it, diagonally too, and one patch of margin."""
    image = noise(672, 672)
    scores = np.zeros((14, 14), np.float32)
    scores[5, 6], scores[6, 7], scores[6, 8] = 1.0, 0.2, 0.19
    scores[11, 2] = 0.9  # high, but apart
    box = looked_at(evidence(image, scores=scores.ravel()))
    assert box == (5 * 48, 4 * 48, 9 * 48, 8 * 48)
    named = [view.name for view in vea.views.repairs()(image, evidence(image, scores=scores.ravel()))]
    assert named == ["plain", "levels", "levels of the look", "flat field", "local levels"]
    assert [view.name for view in vea.views.repairs()(image)] == ["plain", "levels", "flat field", "local levels"]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: vea.views.windows(sizes=(0.0,), places=(2,)), "above 0"),
        (lambda: vea.views.windows(sizes=(1.5,), places=(2,)), "at most 1"),
        (lambda: vea.views.windows(sizes=(0.5,), places=(0,)), "at least 1"),
        (lambda: vea.views.windows(sizes=(0.5, 0.4), places=(2,)), "number of places"),
        (lambda: vea.views.windows(sizes=(0.01,), places=(1,))(noise(40, 40)), "shows nothing"),
        (lambda: vea.views.around((0, 0, 9, 9), step=0.0), "between 0 and 1"),
        (lambda: vea.views.shifts(((2.0, 0.0),)), "from -1 to 1"),
    ],
)
def test_views_that_cannot_be_are_refused(make: object, said: str) -> None:
    with pytest.raises(vea.VeaError, match=said):
        make()  # type: ignore[operator]


# -- scenes


@pytest.mark.parametrize("seed", [5001, 5002, 5003])
@pytest.mark.parametrize("clutter", [False, True])
def test_a_scene_holds_its_page_where_its_box_says(seed: int, clutter: bool) -> None:
    page, scene = vea.tiny.compose(seed), vea.tiny.scene(seed, 0.8, clutter)
    assert scene.image.size == (840, 840)
    entry = page.values.index(scene.answers[0])
    left, top = (round(a - b) for a, b in zip(scene.boxes[0][:2], page.boxes[entry][:2], strict=True))
    assert np.array_equal(np.asarray(scene.image.crop((left, top, left + 672, top + 672))), np.asarray(page.image))
    again = vea.tiny.scene(seed, 0.8, clutter)
    assert np.array_equal(np.asarray(again.image), np.asarray(scene.image))
    outside = np.asarray(scene.image).copy()
    outside[top : top + 672, left : left + 672] = page.image.getpixel((1, 1))
    assert (outside != page.image.getpixel((1, 1))).any() == clutter
    absent = vea.tiny.scene(seed, 0.8, clutter, absent=True)
    assert (absent.answers, absent.boxes, absent.question) == ((vea.tiny.ABSENT,), (), page.absent)


def test_glare_and_shadow_leave_what_they_say() -> None:
    image = Image.new("RGB", (400, 400), (100, 100, 100))
    bright = np.asarray(vea.tiny.glare(image, 3), float)[..., 0]
    assert abs(bright.max() - (235 + (100 - 235) * 0.15)) <= 1
    assert bright.min() >= 100
    dark = np.asarray(vea.tiny.shadow(image, 3), float)[..., 0]
    assert dark.min() == 10
    assert dark.max() == 100
    with pytest.raises(vea.VeaError, match="keep"):
        vea.tiny.glare(image, 0, keep=2)
