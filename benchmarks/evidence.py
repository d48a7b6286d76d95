"""P6: scores → map → highlighted picture, against scipy's Gaussian on pixels.

    python benchmarks/evidence.py

Both sides denoise nothing, upsample the grid, smooth with σ = 0.5 shorter sides, normalise and highlight the picture.
The smoothing matrices, which depend on geometry and σ alone, are in this package's cache, as for every picture but the
first of its size; the first one's cost is a row of its own.
"""

from __future__ import annotations

import argparse

import numpy as np
import reports
from scipy.ndimage import gaussian_filter

from vea_sdk import evidence
from vea_sdk.benchmark import Row, Spread, alternate, ratios, row, timer
from vea_sdk.evidence.smoothing import smoothing_columns

SIGMA, ALPHA = 0.5, 0.5
SIZES = {(756, 1008): (27, 36), (504, 504): (18, 18)}  # pixels: patches of 28, as Qwen2.5-VL has them


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    reports.add_arguments(parser)
    options = parser.parse_args()
    rows = [one for size, grid in SIZES.items() for one in measure(size, grid, options.rounds)]
    reports.finish(rows, "evidence", options)


def measure(size: tuple[int, int], grid: tuple[int, int], rounds: int) -> list[Row]:
    random = np.random.default_rng(0)
    scores = random.random(grid, dtype=np.float32)
    picture = random.integers(0, 256, (*size, 3), dtype=np.uint8)

    def ours() -> np.ndarray:
        pixels = evidence.build_map(scores.ravel(), grid, size, sigma=SIGMA, denoise=False)
        return evidence.highlight(picture, pixels, alpha=ALPHA)

    taken = alternate({"ours": timer(ours, 0.05), "scipy": timer(lambda: on_pixels(scores, picture))}, rounds)
    shape = {"pixels": f"{size[0]}×{size[1]}", "grid": f"{grid[0]}×{grid[1]}"}
    medians = (1e3 * Spread.of(taken[name]).p50 for name in ("ours", "scipy"))
    note = "{:.2f} ms against {:.0f} ms".format(*medians)
    found = evidence.build_map(scores.ravel(), grid, size, sigma=SIGMA, denoise=False)
    error = float(np.abs(found - pixel_map(scores.astype(np.float64), size)).max())
    limit = 500.0 if size == (756, 1008) else None
    common = {"target": "P6", "shape": shape, "dtype": None}

    def first() -> object:
        smoothing_columns.cache_clear()
        return ours()

    cold = Spread.of([1e3 * timer(first, 0.0)() for _ in range(rounds)])
    return [
        row("scipy on pixels / scores → map → highlighted picture", ratios(taken["scipy"], taken["ours"]), "×",
            limit=limit, better="higher", note=note, **common),
        row("largest difference of the maps, of their range", error, "", limit=1e-5,
            note="against scipy in float64", **common),
        row("the first picture of its size, matrices included", cold, "ms", **common),
    ]  # fmt: skip


def pixel_map(scores: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Upsample, filter every pixel, stretch to [0, 1]."""
    cells = [np.arange(n) * m // n for n, m in zip(size, scores.shape, strict=True)]
    pixels = gaussian_filter(scores[np.ix_(*cells)], SIGMA * min(size))
    return (pixels - pixels.min()) / (pixels.max() - pixels.min())


def on_pixels(scores: np.ndarray, picture: np.ndarray) -> np.ndarray:
    """The whole way in numpy and scipy."""
    weight = ALPHA + (1 - ALPHA) * pixel_map(scores, picture.shape[:2])
    return np.rint(picture * weight[..., None]).astype(np.uint8)


if __name__ == "__main__":
    main()
