"""Denoise, smooth, normalise and the map of one grid, against brute force and SciPy."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from vea_sdk import _native
from vea_sdk.errors import GeometryError, InvalidInputError, NaNAttentionError
from vea_sdk.evidence import build_map, denoise, normalize, smooth
from vea_sdk.evidence.smoothing import Side, smoothing_columns

SIZES = [
    # (height, width), (rows, cols): divisible, odd, non-divisible, tiny, and grids finer than the picture
    ((756, 1008), (27, 36)),
    ((252, 252), (18, 18)),
    ((196, 196), (14, 14)),
    ((112, 336), (8, 24)),
    ((250, 167), (24, 24)),
    ((167, 250), (18, 27)),
    ((101, 37), (7, 5)),
    ((97, 211), (8, 13)),
    ((64, 64), (1, 1)),
    ((64, 50), (1, 7)),
    ((50, 64), (7, 1)),
    ((17, 989), (3, 70)),
    ((3, 200), (2, 9)),
    ((200, 3), (9, 2)),
    ((111, 1), (17, 1)),
    ((1, 111), (1, 17)),
    ((2, 2), (2, 2)),
    ((1, 1), (1, 1)),
    ((5, 4), (7, 9)),
    ((8, 30), (16, 16)),
    ((257, 129), (24, 24)),
    ((29, 31), (29, 31)),
]


def random_grid(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(shape)


def upsampled(grid: np.ndarray, image_hw: tuple[int, int]) -> np.ndarray:
    """Pixel y belongs to row floor(y · rows / height)."""
    (height, width), (rows, cols) = image_hw, grid.shape
    return grid[(np.arange(height) * rows // height)[:, None], (np.arange(width) * cols // width)[None, :]]


def blurred_by_scipy(grid: np.ndarray, image_hw: tuple[int, int], sigma: float) -> np.ndarray:
    sigma_px = sigma * min(image_hw) if sigma <= 1 else sigma
    pixels = upsampled(grid.astype(np.float64), image_hw)
    return gaussian_filter(pixels, sigma_px, mode="reflect", truncate=4.0)


def denoised_by_loops(grid: np.ndarray, lam: float, border: str) -> np.ndarray:
    result = grid.copy()
    rows, cols = grid.shape
    for i in range(rows):
        for j in range(cols):
            around = []
            for y in (i - 1, i, i + 1):
                for x in (j - 1, j, j + 1):
                    inside = 0 <= y < rows and 0 <= x < cols
                    if (y, x) != (i, j) and (inside or border == "replicate"):
                        around.append(grid[min(max(y, 0), rows - 1), min(max(x, 0), cols - 1)])
            if around and grid[i, j] > lam * max(around):
                result[i, j] = sum(around) / len(around)
    return result


class TestDenoise:
    @pytest.mark.parametrize("border", ["valid", "replicate"])
    @pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1), (2, 2), (3, 17), (24, 24), (27, 36)])
    @pytest.mark.parametrize("lam", [0.5, 1.5, 10.0])
    def test_equals_the_formula(self, shape: tuple[int, int], lam: float, border: str) -> None:
        grid = random_grid(shape) ** 8  # steep, so that both branches are taken
        np.testing.assert_allclose(denoise(grid, lam, border), denoised_by_loops(grid, lam, border), rtol=1e-12)

    @settings(max_examples=40, deadline=None)
    @given(st.integers(1, 7), st.integers(1, 7), st.integers(0, 1000), st.sampled_from(["valid", "replicate"]))
    def test_any_small_grid(self, rows: int, cols: int, seed: int, border: str) -> None:
        grid = random_grid((rows, cols), seed) ** 12
        np.testing.assert_allclose(denoise(grid, 2.0, border), denoised_by_loops(grid, 2.0, border), rtol=1e-12)

    def test_a_spike_at_the_corner_goes_unless_edges_are_replicated(self) -> None:
        grid = np.full((6, 8), 0.01)
        grid[0, 0] = 1.0
        assert denoise(grid)[0, 0] == pytest.approx(0.01)
        assert denoise(grid, border="replicate")[0, 0] == 1.0

    @pytest.mark.parametrize(("spike", "stays"), [(10.0, True), (np.nextafter(10.0, 11), False)])
    def test_a_cell_at_lambda_times_its_neighbours_stays(self, spike: float, stays: bool) -> None:
        grid = np.ones((3, 3))
        grid[1, 1] = spike
        assert denoise(grid)[1, 1] == (spike if stays else 1.0)

    def test_all_cells_are_tested_on_the_input(self) -> None:
        grid = np.array([[1.0, 0.05, 1e-4, 1e-4]])
        np.testing.assert_allclose(denoise(grid), [[0.05, 0.05, 1e-4, 1e-4]])

    def test_keeps_the_input_and_its_kind(self) -> None:
        grid = np.full((5, 5), 0.01, dtype=np.float32)
        grid[2, 2] = 9.0
        before = grid.copy()
        from_numpy, from_torch = denoise(grid), denoise(torch.from_numpy(grid))
        np.testing.assert_array_equal(grid, before)
        assert from_numpy.dtype == np.float32
        assert isinstance(from_torch, torch.Tensor)
        np.testing.assert_array_equal(from_numpy, from_torch.numpy())

    def test_read_only_and_strided_grids(self) -> None:
        grid = random_grid((6, 9)) ** 8
        frozen = grid.copy()
        frozen.setflags(write=False)
        np.testing.assert_array_equal(denoise(frozen, 2.0), denoise(grid, 2.0))
        np.testing.assert_array_equal(denoise(grid[::-1, ::2], 2.0), denoise(grid[::-1, ::2].copy(), 2.0))

    @pytest.mark.parametrize("lam", [0.0, -1.0, float("nan")])
    def test_bad_lam(self, lam: float) -> None:
        with pytest.raises(InvalidInputError, match=f"lam={lam}"):
            denoise(np.ones((2, 2)), lam)

    def test_bad_arguments(self) -> None:
        with pytest.raises(InvalidInputError, match=r"wrap.*valid"):
            denoise(np.ones((2, 2)), border="wrap")  # type: ignore[arg-type]
        with pytest.raises(InvalidInputError, match=r"\(4,\)"):
            denoise(np.ones(4))
        with pytest.raises(InvalidInputError, match=r"\(0, 3\)"):
            denoise(np.ones((0, 3)))


class TestSmooth:
    @pytest.mark.parametrize(("image_hw", "shape"), SIZES)
    def test_equals_scipy_on_pixels(self, image_hw: tuple[int, int], shape: tuple[int, int]) -> None:
        grid = random_grid(shape)
        expected = blurred_by_scipy(grid, image_hw, 0.5)
        spread = np.ptp(expected) or 1.0
        assert np.abs(smooth(grid, image_hw) - expected).max() <= 1e-9 * spread
        single = smooth(grid.astype(np.float32), image_hw)
        assert single.dtype == np.float32
        assert np.abs(single - expected).max() <= 1e-5 * spread

    @pytest.mark.parametrize("sigma", [0.01, 0.1, 0.9, 1.0, 1.01, 3.7, 150.0])
    def test_other_widths(self, sigma: float) -> None:
        grid = random_grid((7, 5))
        expected = blurred_by_scipy(grid, (61, 48), sigma)
        np.testing.assert_allclose(smooth(grid, (61, 48), sigma), expected, rtol=0, atol=1e-12)

    @settings(max_examples=40, deadline=None)
    @given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 12), st.integers(1, 12), st.floats(0.02, 9.0))
    def test_any_geometry(self, height: int, width: int, rows: int, cols: int, sigma: float) -> None:
        grid = random_grid((rows, cols))
        expected = blurred_by_scipy(grid, (height, width), sigma)
        np.testing.assert_allclose(smooth(grid, (height, width), sigma), expected, rtol=0, atol=1e-11)

    def test_zero_sigma_is_nearest_neighbour(self) -> None:
        grid = random_grid((5, 7))
        np.testing.assert_allclose(smooth(grid, (33, 50), 0.0), upsampled(grid, (33, 50)), rtol=1e-12)

    def test_torch_in_torch_out(self) -> None:
        grid = torch.from_numpy(random_grid((5, 7)))
        result = smooth(grid, (33, 50))
        assert isinstance(result, torch.Tensor)
        assert result.dtype == torch.float64
        np.testing.assert_array_equal(result.numpy(), smooth(grid.numpy(), (33, 50)))
        assert smooth(grid.bfloat16(), (33, 50)).dtype == torch.float32

    def test_autocast_does_not_coarsen_it(self) -> None:
        grid = torch.from_numpy(random_grid((5, 7))).float()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            inside = smooth(grid, (33, 50))
        assert torch.equal(inside, smooth(grid, (33, 50)))

    def test_gradients_flow(self) -> None:
        grid = torch.from_numpy(random_grid((3, 4))).requires_grad_()
        smooth(grid, (9, 8)).sum().backward()
        assert grid.grad is not None
        # A blur with reflected borders moves weight about and loses none.
        assert grid.grad.sum().item() == pytest.approx(9 * 8)

    @pytest.mark.gpu
    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
    def test_stays_on_the_gpu(self) -> None:
        grid = torch.from_numpy(random_grid((27, 36))).float()
        result = smooth(grid.cuda(), (756, 1008))
        assert result.is_cuda
        torch.testing.assert_close(result.cpu(), smooth(grid, (756, 1008)), rtol=0, atol=1e-6)

    def test_within_ten_milliseconds(self) -> None:
        """Processor time of all threads, so that a busy machine does not count."""
        grid = random_grid((27, 36)).astype(np.float32)
        smooth(grid, (756, 1008))
        times = []
        for _ in range(15):
            start = time.process_time()
            smooth(grid, (756, 1008))
            times.append(time.process_time() - start)
        assert min(times) < 0.010

    @pytest.mark.parametrize("sigma", [-0.1, float("nan"), float("inf"), 1e9])
    def test_bad_sigma(self, sigma: float) -> None:
        with pytest.raises(InvalidInputError, match=f"sigma={sigma}"):
            smooth(np.ones((2, 2)), (4, 4), sigma)

    @pytest.mark.parametrize("image_hw", [(0, 5), (5, -1)])
    def test_bad_size(self, image_hw: tuple[int, int]) -> None:
        with pytest.raises(InvalidInputError, match=r"image_hw=\("):
            smooth(np.ones((2, 2)), image_hw)


class TestSmoothingColumns:
    @pytest.mark.parametrize("sigma_px", [0.0, 0.8, 5.0, 60.0])
    @pytest.mark.parametrize(("start", "stop"), [(0, 20), (2.3, 17.9), (-4.5, 20.0), (-3.2, 27.6), (6.1, 6.9)])
    def test_fractional_edges_count_by_area(self, start: float, stop: float, sigma_px: float) -> None:
        size, n = 20, 5 if (start, stop) == (0, 20) else 6
        edges = start + (stop - start) * np.arange(n + 1) / n
        pixel = np.arange(size)[:, None]
        shared = np.minimum(edges[1:], pixel + 1) - np.maximum(edges[:-1], pixel)
        expected = np.maximum(shared, 0)
        if sigma_px:
            expected = gaussian_filter(expected, (sigma_px, 0), mode="reflect", truncate=4.0)
        columns = smoothing_columns(Side(n, size, sigma_px, start, stop))
        np.testing.assert_allclose(columns[:-1].T, expected, rtol=0, atol=1e-12)
        np.testing.assert_allclose(columns[-1], expected.sum(1), rtol=0, atol=1e-12)

    def test_a_region_outside_the_picture_gives_nothing(self) -> None:
        assert not smoothing_columns(Side(3, 10, 2.0, -9.0, -1.0)).any()

    def test_the_cache_is_bounded(self) -> None:
        for size in range(1, 60):
            smoothing_columns(Side(1, size, 1.0))
        info = smoothing_columns.cache_info()
        assert info.maxsize is not None
        assert info.currsize <= info.maxsize


class TestNormalize:
    def test_min_max(self) -> None:
        values = random_grid((9, 7)) * 3 + 5
        expected = (values - values.min()) / np.ptp(values)
        np.testing.assert_allclose(normalize(values), expected, rtol=1e-12)
        result = normalize(values.astype(np.float32))
        assert (result.min(), result.max()) == (0.0, 1.0)

    @pytest.mark.parametrize("value", [0.0, 1.0, 1 / 3, -2.5e-8])
    def test_constant_becomes_zeros(self, value: float) -> None:
        assert not normalize(np.full((4, 4), value, dtype=np.float32)).any()

    def test_constant_scores_stay_flat_through_all_steps(self) -> None:
        assert not build_map(np.full(24 * 24, 1 / 3, dtype=np.float32), (24, 24), (333, 500)).any()

    def test_what_smoothing_leaves_of_a_flat_map_is_flat(self) -> None:
        """Up to 16 rounding steps of the largest value, in either precision."""
        for dtype in (np.float32, np.float64):
            for steps in (1, 15, 17, 100):
                level = 1 + np.array([[0, steps]], dtype) * np.finfo(dtype).eps
                assert normalize(level).tolist() == [[0.0, float(steps > 16)]]

    def test_tiny_scores_are_not_flat(self) -> None:
        assert normalize(np.array([[1e-30, 2e-30]], dtype=np.float32)).tolist() == [[0.0, 1.0]]

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_nan_is_reported(self, bad: float) -> None:
        values = np.ones((3, 3))
        values[1, 2] = bad
        with pytest.raises(NaNAttentionError, match="NaN or infinity"):
            normalize(values)
        with pytest.raises(NaNAttentionError, match="NaN or infinity"):
            build_map(values.ravel(), (3, 3), (9, 9))


class TestBuildMap:
    def test_equals_the_steps_in_a_row(self) -> None:
        scores = random_grid((6, 8)) ** 8
        blurred = blurred_by_scipy(denoised_by_loops(scores, 3.0, "valid"), (50, 61), 0.2)
        expected = (blurred - blurred.min()) / np.ptp(blurred)
        np.testing.assert_allclose(build_map(scores.ravel(), (6, 8), (50, 61), 3.0, 0.2), expected, atol=1e-10)

    def test_steps_can_be_left_out(self) -> None:
        scores = random_grid((6, 8)) ** 8
        plain = build_map(scores.ravel(), (6, 8), (48, 64), denoise=False, smooth=False)
        np.testing.assert_allclose(plain, normalize(upsampled(scores, (48, 64))), atol=1e-12)
        only_denoised = build_map(scores.ravel(), (6, 8), (48, 64), lam=2.0, smooth=False)
        expected = normalize(upsampled(denoised_by_loops(scores, 2.0, "valid"), (48, 64)))
        np.testing.assert_allclose(only_denoised, expected, atol=1e-12)

    def test_kinds(self) -> None:
        scores = random_grid((6, 8)).astype(np.float32).ravel()
        from_torch = build_map(torch.from_numpy(scores), (6, 8), (48, 64))
        assert isinstance(from_torch, torch.Tensor)
        np.testing.assert_array_equal(from_torch.numpy(), build_map(scores, (6, 8), (48, 64)))

    @pytest.mark.parametrize(
        ("image_hw", "shape"), [((756, 1008), (27, 36)), ((97, 211), (8, 13)), ((1500, 2001), (9, 7))]
    )
    def test_compiled_equals_plain(
        self, image_hw: tuple[int, int], shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        scores = random_grid(shape).astype(np.float32).ravel()
        compiled = build_map(scores, shape, image_hw)
        exact = build_map(scores.astype(np.float64), shape, image_hw)
        monkeypatch.setattr(_native, "extension", lambda: None)
        plain = build_map(scores, shape, image_hw)
        assert np.abs(compiled - exact).max() <= max(1e-6, 2 * np.abs(plain - exact).max())

    def test_wrong_count_names_both(self) -> None:
        with pytest.raises(GeometryError, match=r"577 scores.*24 x 24 = 576"):
            build_map(np.ones(577), (24, 24), (336, 336))
