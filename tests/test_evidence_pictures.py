"""Highlight and overlay against the formulas in float64."""

from __future__ import annotations

import gc
import pickle

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from vea_sdk import _native
from vea_sdk.errors import InvalidInputError
from vea_sdk.evidence import highlight, overlay
from vea_sdk.evidence.colours import heat
from vea_sdk.evidence.overlaying import OPACITY

H, W = 37, 53
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (H, W, 3), dtype=np.uint8)
PIXEL_MAP = RNG.random((H, W)).astype(np.float32)
PIXEL_MAP.flat[:2] = 0, 1


def exact(pixels: np.ndarray, alpha: float) -> np.ndarray:
    return (alpha + (1 - alpha) * PIXEL_MAP.astype(np.float64))[..., None] * pixels


def assert_nearest(result: np.ndarray, expected: np.ndarray) -> None:
    """Rounded to nearest; where the exact value is a tie, float32 may fall on either side."""
    assert np.abs(result - expected).max() <= 0.5 + 1e-4


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 0.9])
def test_highlight_equals_the_formula_on_every_kind(alpha: float) -> None:
    expected = exact(PIXELS, alpha)
    from_pil = highlight(Image.fromarray(PIXELS), PIXEL_MAP, alpha)
    assert from_pil.mode == "RGB"
    from_numpy = highlight(PIXELS, PIXEL_MAP, alpha)
    assert from_numpy.dtype == np.uint8
    from_torch = highlight(torch.from_numpy(PIXELS), torch.from_numpy(PIXEL_MAP), alpha)
    assert from_torch.dtype == torch.uint8
    channels_first = highlight(torch.from_numpy(PIXELS).permute(2, 0, 1), PIXEL_MAP, alpha)
    assert channels_first.shape == (3, H, W)
    assert_nearest(np.asarray(from_pil), expected)
    for other in (from_numpy, from_torch.numpy(), channels_first.permute(1, 2, 0).numpy()):
        np.testing.assert_array_equal(other, np.asarray(from_pil))
    np.testing.assert_array_equal(highlight(PIXELS[..., 0], PIXEL_MAP, alpha), from_numpy[..., 0])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_are_not_rounded(dtype: type) -> None:
    pixels = (PIXELS / 255).astype(dtype)
    result = highlight(pixels, PIXEL_MAP, 0.5)
    assert result.dtype == dtype
    np.testing.assert_allclose(result, exact(pixels, 0.5), rtol=1e-3 if dtype == np.float16 else 1e-6)


def test_alpha_one_changes_nothing() -> None:
    np.testing.assert_array_equal(np.asarray(highlight(Image.fromarray(PIXELS), PIXEL_MAP, 1.0)), PIXELS)
    np.testing.assert_array_equal(highlight(PIXELS, PIXEL_MAP, 1.0), PIXELS)


def test_the_input_is_kept() -> None:
    before, map_before = PIXELS.copy(), PIXEL_MAP.copy()
    image = Image.fromarray(PIXELS)
    highlight(image, PIXEL_MAP)
    highlight(PIXELS, PIXEL_MAP)
    overlay(image, PIXEL_MAP, boxes=[(1, 1, 9, 9)])
    np.testing.assert_array_equal(np.asarray(image), before)
    np.testing.assert_array_equal(PIXELS, before)
    np.testing.assert_array_equal(PIXEL_MAP, map_before)


def test_transparent_pictures_are_laid_on_white_first() -> None:
    clear = Image.new("RGBA", (W, H), (9, 9, 9, 0))
    assert np.asarray(highlight(clear, np.ones((H, W)))).min() == 255


def test_highlight_errors() -> None:
    image = Image.fromarray(PIXELS)
    for show in (highlight, overlay):
        with pytest.raises(InvalidInputError, match=f"{H}x{W}.*{W}x{H}"):
            show(image, PIXEL_MAP.T)
        with pytest.raises(InvalidInputError, match=r"0 to 2.*normalize"):
            show(image, 2 * PIXEL_MAP)
        with pytest.raises(InvalidInputError, match="nan"):
            show(image, np.full((H, W), np.nan))
        with pytest.raises(InvalidInputError, match="2 dimensions"):
            show(image, PIXEL_MAP[None])
    with pytest.raises(InvalidInputError, match=rf"\({H}, {W}, 4\)"):
        highlight(np.zeros((H, W, 4), np.uint8), PIXEL_MAP)
    with pytest.raises(InvalidInputError, match=r"\(5, 5\)"):
        highlight(np.zeros((5, 5), np.uint8), PIXEL_MAP)
    for alpha in (-0.1, 1.1, float("nan")):
        with pytest.raises(InvalidInputError, match=f"alpha={alpha}"):
            highlight(image, PIXEL_MAP, alpha)


@pytest.mark.parametrize("beside", [1.001, 2.0, -0.001, float("inf"), float("nan")])
@pytest.mark.parametrize("compiled", [True, False])
def test_a_map_beside_0_to_1_is_refused_for_every_kind(
    beside: float, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One place is enough; above 1 a picture would become brighter, or wrap around."""
    if not compiled:
        monkeypatch.setattr(_native, "extension", lambda: None)
    one = PIXEL_MAP.copy()
    one[H // 2, W // 3] = beside
    for image in (Image.fromarray(PIXELS), PIXELS, PIXELS[..., 0], torch.from_numpy(PIXELS), PIXELS / 255):
        with pytest.raises(InvalidInputError, match=r"not \[0, 1\]"):
            highlight(image, one)
    one[H // 2, W // 3] = np.float32(1 + 5e-7)  # what rounding makes of 1
    np.testing.assert_array_equal(highlight(PIXELS, one)[H // 2, W // 3], PIXELS[H // 2, W // 3])


def test_every_colour_is_as_far_from_black_as_from_white() -> None:
    table = heat()
    assert table.shape == (256, 3)
    assert np.abs(table.sum(1) - 3 * 255 / 2).max() <= 6
    assert (np.diff(table[:, 0]) >= 0).all()  # hotter is redder
    assert (np.diff(table[:, 2]) <= 0).all()


def test_overlay_colours_only_where_the_map_is_high() -> None:
    image = Image.fromarray(PIXELS)
    assert np.array_equal(np.asarray(overlay(image, np.zeros((H, W)))), PIXELS)
    black, white = Image.new("RGB", (W, H)), Image.new("RGB", (W, H), "white")
    hot = heat()[255].astype(np.float64)
    on_black, on_white = (np.asarray(overlay(picture, np.ones((H, W))))[0, 0] for picture in (black, white))
    np.testing.assert_array_equal(on_black, np.rint(OPACITY * hot))
    np.testing.assert_array_equal(on_white, np.rint((1 - OPACITY) * 255 + OPACITY * hot))
    np.testing.assert_array_equal(np.asarray(overlay(white, np.ones((H, W)), opacity=1.0))[0, 0], np.rint(hot))


@pytest.mark.parametrize("ground", [0, 255])
def test_more_heat_is_more_change_on_black_and_on_white(ground: int) -> None:
    ramp = np.tile(np.linspace(0, 1, 64, dtype=np.float32), (8, 1))
    drawn = np.asarray(overlay(Image.new("RGB", (64, 8), (ground,) * 3), ramp)).astype(int)
    change = np.abs(drawn - ground).sum(-1)[0]
    assert (np.diff(change) >= 0).all()
    assert change[-1] > 150


def relative_luminance(colour: np.ndarray) -> float:
    """As the Web Content Accessibility Guidelines 2.2 define it."""
    c = colour / 255
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("heated", [0.0, 0.25, 0.5, 0.75, 1.0])
def test_black_text_stays_readable_under_heat(heated: float) -> None:
    ground, ink = (
        relative_luminance(np.asarray(overlay(Image.new("RGB", (W, H), colour), np.full((H, W), heated)))[0, 0])
        for colour in ("white", "black")
    )
    assert (ground + 0.05) / (ink + 0.05) >= 4.5  # their level AA


@pytest.mark.parametrize("opacity", [0, -0.1, 1.5, float("nan"), True, "half"])
def test_an_opacity_that_cannot_be_is_refused(opacity: object) -> None:
    with pytest.raises(InvalidInputError, match=f"opacity={opacity!r}"):
        overlay(Image.fromarray(PIXELS), PIXEL_MAP, opacity=opacity)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(300, 200), (40, 30), (700, 900), (5, 5)])
def test_a_legend_leaves_the_picture_as_it_is(size: tuple[int, int]) -> None:
    image = Image.new("RGB", size, "white")
    shown = np.random.default_rng(0).random((size[1], size[0]), dtype=np.float32)
    plain, legend = overlay(image, shown), overlay(image, shown, legend=True)
    assert legend.height == plain.height
    assert legend.width > plain.width
    assert legend.crop((0, 0, *size)) == plain
    bar = np.asarray(legend)[:, size[0] :]
    hot, cool = (np.rint(ground + OPACITY * v * (heat()[255 * v] - ground)) for v, ground in ((1, 255), (0, 255)))
    for colour in (hot, cool):
        assert (np.abs(bar - colour).max(-1) <= 1).any()


@pytest.mark.parametrize("box", [(5.0, 4.0, 30.0, 20.0), (0.0, 0.0, 53.0, 37.0), (5.2, 5.1, 6.4, 6.3), (-9, 30, 9, 99)])
def test_boxes_are_outlined_within_their_edges(box: tuple[float, float, float, float]) -> None:
    image = Image.new("RGB", (W, H), (120, 120, 120))
    drawn = np.asarray(overlay(image, np.zeros((H, W)), boxes=[box]))
    ys, xs = np.nonzero((drawn != 120).any(-1))
    x0, y0, x1, y1 = (round(edge) for edge in box)
    assert (xs.min(), ys.min()) == (max(x0, 0), max(y0, 0))
    assert (xs.max() + 1, ys.max() + 1) == (min(x1, W), min(y1, H))


def test_boxes_without_a_pixel_draw_nothing() -> None:
    image = Image.new("RGB", (W, H), (120, 120, 120))
    for box in ((2, 2, 2, 2), (-9, -9, -1, -1), (60, 5, 70, 9)):
        assert (np.asarray(overlay(image, np.zeros((H, W)), boxes=[box])) == 120).all()


@pytest.mark.parametrize("size", [(1, 1), (31, 33), (64, 65), (1100, 997), (2100, 2003)])
def test_pictures_of_any_size(size: tuple[int, int]) -> None:
    """Tails of the compiled loops, more rows than one band, more than one thread, more than Pillow keeps in a piece."""
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    weights = rng.random(size, dtype=np.float32)
    result = highlight(Image.fromarray(pixels), weights, 0.25)
    assert_nearest(np.asarray(result), (0.25 + 0.75 * weights.astype(np.float64))[..., None] * pixels)
    np.testing.assert_array_equal(highlight(pixels, weights, 0.25), np.asarray(result))


def test_the_result_is_a_picture_like_any_other() -> None:
    image = Image.fromarray(PIXELS)
    result = highlight(image, PIXEL_MAP)
    expected = Image.fromarray(np.asarray(result).copy())
    del image
    gc.collect()
    for change in (
        lambda im: im.resize((20, 30)),
        lambda im: im.convert("RGBA"),
        lambda im: im.crop((3, 3, 9, 60)),
        lambda im: pickle.loads(pickle.dumps(im)),
        lambda im: im.transpose(Image.Transpose.ROTATE_90),
    ):
        assert change(result) == change(expected)
    drawn = result.copy()
    ImageDraw.Draw(drawn).rectangle((0, 0, 5, 5), fill="red")
    result.putpixel((7, 7), (1, 2, 3))
    assert (drawn.getpixel((2, 2)), result.getpixel((7, 7))) == ((255, 0, 0), (1, 2, 3))
    assert result.getpixel((2, 2)) == expected.getpixel((2, 2))


def test_plain_code_serves_without_the_extension(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = [np.asarray(highlight(image, PIXEL_MAP)) for image in (Image.fromarray(PIXELS), PIXELS)]
    monkeypatch.setattr(_native, "extension", lambda: None)
    for image, expected in zip((Image.fromarray(PIXELS), PIXELS), compiled, strict=True):
        plain = np.asarray(highlight(image, PIXEL_MAP))
        assert_nearest(plain, exact(PIXELS, 0.5))
        assert (plain != expected).mean() < 1e-3  # ties only


def test_the_extension_refuses_what_does_not_fit() -> None:
    kernels = _native.extension()
    if kernels is None:
        pytest.skip("needs the compiled extension")
    weights, pixels = np.ones((4, 5), np.float32), np.ones((4, 5, 3), np.uint8)
    for arguments in (
        (pixels[:3], weights, 0.5, pixels.copy(), 1),
        (pixels, weights[:, ::2], 0.5, pixels.copy(), 1),
        (pixels, weights.astype(np.float64), 0.5, pixels.copy(), 1),
        (pixels.astype(np.int8), weights, 0.5, pixels.copy(), 1),
        (pixels[..., :2], weights, 0.5, np.ones((4, 5, 2), np.uint8), 1),
        (Image.fromarray(pixels).__arrow_c_array__()[1], weights, 0.5, pixels.copy(), 1),
        (Image.fromarray(pixels[:3]).__arrow_c_array__()[1], weights, 0.5, np.ones((4, 5, 4), np.uint8), 1),
    ):
        with pytest.raises(InvalidInputError):
            kernels.highlight_cpu(*arguments)
    left, core, right = (np.ones(shape, np.float32) for shape in ((2, 8), (2, 3), (3, 9)))
    kernels.expand_cpu(left, core, right, np.ones((8, 9), np.float32), False, 1)
    for out in (
        np.ones((8, 8), np.float32),
        np.ones((8, 9)),
        np.ones(72, np.float32),
        np.ones((8, 18), np.float32)[:, ::2],
    ):
        with pytest.raises(InvalidInputError):
            kernels.expand_cpu(left, core, right, out, False, 1)
    with pytest.raises(InvalidInputError):
        kernels.Block(0)
