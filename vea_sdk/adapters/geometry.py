"""How a picture became image tokens: which pixels of the original each token stands for.

All boxes are (x0, y0, x1, y1) in pixels, origin at the top left corner, x1 and y1 exclusive.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vea_sdk.errors import GeometryError, InvalidInputError

Box = tuple[float, float, float, float]
"""(x0, y0, x1, y1) in pixels."""

_WHOLE = 0.9  # a grid whose padding is cut off may miss a line of cells at the picture's edge


@dataclass(frozen=True, eq=False)
class PatchGrid:
    """A uniform grid of image tokens: cell (r, c) shows the (r, c)-th of rows × cols equal parts of
    ``region``.

    ``region``: the part of the original picture that the whole grid covers, in original pixels. It overhangs
    the picture where the processor padded, and lies inside it where the processor cropped.
    ``token_index``: [rows, cols] int64, which of the picture's own tokens (0 … n_tokens − 1) fills each cell.
    """

    region: Box
    token_index: NDArray[np.int64]

    def __post_init__(self) -> None:
        check_box("A grid's region", self.region)
        index = np.array(self.token_index, dtype=np.int64)
        if index.ndim != 2 or index.size == 0:
            raise GeometryError(f"A patch grid needs a token_index of [rows, cols]; got shape {index.shape}.")
        index.setflags(write=False)
        object.__setattr__(self, "token_index", index)

    @property
    def rows(self) -> int:
        return int(self.token_index.shape[0])

    @property
    def cols(self) -> int:
        return int(self.token_index.shape[1])

    @property
    def cell_area(self) -> float:
        """Original pixels of one cell."""
        x0, y0, x1, y1 = self.region
        return (x1 - x0) * (y1 - y0) / (self.rows * self.cols)

    def boxes(self) -> NDArray[np.float64]:
        """The cells' boxes, [rows, cols, 4] float64, in original pixels."""
        x0, y0, x1, y1 = self.region
        x = x0 + (x1 - x0) * np.arange(self.cols + 1) / self.cols
        y = y0 + (y1 - y0) * np.arange(self.rows + 1) / self.rows
        left, top = np.meshgrid(x[:-1], y[:-1])
        right, bottom = np.meshgrid(x[1:], y[1:])
        return np.stack([left, top, right, bottom], axis=-1)


@dataclass(frozen=True, eq=False)
class ImageLayout:
    """How one picture became image tokens.

    ``original_size``: (height, width) of the picture as the user gave it.
    ``input_size``: (height, width) in pixels of the canvas the model saw (tiles put together).
    ``input_region``: the part of the original which that canvas shows, in original pixels.
    ``n_tokens``: the picture's tokens in the prompt, separators that stand for no pixel (line ends) included.
    ``grids``: one over the whole picture first, then any coarser, finer or partial ones.

    Raises GeometryError when the parts contradict each other.
    """

    original_size: tuple[int, int]
    input_size: tuple[int, int]
    input_region: Box
    n_tokens: int
    grids: tuple[PatchGrid, ...]

    def __post_init__(self) -> None:
        for name, size in (("original_size", self.original_size), ("input_size", self.input_size)):
            check_size(name, size)
        check_box("input_region", self.input_region)
        if not self.grids:
            raise GeometryError("A layout needs at least one grid: tokens without a place cannot be mapped.")
        used = np.concatenate([grid.token_index.ravel() for grid in self.grids])
        if used.min() < 0 or used.max() >= self.n_tokens:
            raise GeometryError(
                f"The grids name tokens {used.min()} to {used.max()}, but the picture has {self.n_tokens} "
                f"tokens (0 to {self.n_tokens - 1})."
            )
        values, counts = np.unique(used, return_counts=True)
        if (counts > 1).any():
            raise GeometryError(f"Token {values[counts > 1][0]} fills more than one cell of the grids.")

    @property
    def finest(self) -> PatchGrid:
        """The grid of the smallest cells among those that show as much of the picture as any."""
        seen = [self._shown(grid) for grid in self.grids]
        whole = [grid for grid, part in zip(self.grids, seen, strict=True) if part >= _WHOLE * max(seen)]
        return min(whole, key=lambda grid: grid.cell_area)

    @property
    def grid_size(self) -> tuple[int, int]:
        """(rows, cols) of the finest grid over the whole picture."""
        return self.finest.rows, self.finest.cols

    def visible_boxes(self) -> NDArray[np.float64]:
        """:meth:`token_boxes` clipped to the picture: [n_tokens, 4], empty where a token shows none of it."""
        height, width = self.original_size
        boxes = np.clip(self.token_boxes(), 0, [width, height, width, height])
        empty = ~((boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]))  # NaN compares false
        boxes[empty] = 0
        return boxes

    def _shown(self, grid: PatchGrid) -> float:
        """Pixels of the picture under a grid."""
        height, width = self.original_size
        x0, y0, x1, y1 = np.clip(grid.region, 0, [width, height, width, height])
        return float((x1 - x0) * (y1 - y0))

    def token_boxes(self, space: Literal["original", "input"] = "original") -> NDArray[np.float64]:
        """The pixels each token stands for: [n_tokens, 4] float64, NaN rows for separators.

        ``space="original"``: pixels of the picture as given; ``"input"``: pixels of the canvas the model saw.
        """
        boxes = np.full((self.n_tokens, 4), np.nan)
        for grid in self.grids:
            boxes[grid.token_index] = grid.boxes()
        if space == "original":
            return boxes
        if space != "input":
            raise InvalidInputError(f'space must be "original" or "input", not {space!r}.')
        x0, y0, x1, y1 = self.input_region
        height, width = self.input_size
        boxes[:, 0::2] = (boxes[:, 0::2] - x0) * (width / (x1 - x0))
        boxes[:, 1::2] = (boxes[:, 1::2] - y0) * (height / (y1 - y0))
        return boxes

    def __str__(self) -> str:
        height, width = self.original_size
        grids = " + ".join(f"{grid.rows}x{grid.cols}" for grid in self.grids)
        return f"{height}x{width} pixels as {grids} patches, {self.n_tokens} tokens"


def check_size(name: str, size: tuple[int, int]) -> None:
    if len(size) != 2 or min(size) < 1:
        raise GeometryError(f"{name} must be (height, width), both at least 1; got {tuple(size)}.")


def check_box(name: str, box: Box) -> None:
    x0, y0, x1, y1 = box
    if not (np.isfinite(box).all() and x1 > x0 and y1 > y0):
        raise GeometryError(f"{name} must be (x0, y0, x1, y1) with x1 > x0 and y1 > y0; got {box}.")
