"""Where a model looked in one picture, and the ways to show it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vea_sdk.adapters.geometry import Box, ImageLayout
from vea_sdk.errors import GeometryError, InvalidInputError, NaNAttentionError
from vea_sdk.evidence.canvas import input_canvas
from vea_sdk.evidence.highlight import highlight
from vea_sdk.evidence.maps import Canvas, layout_map, on_canvas
from vea_sdk.evidence.overlay import overlay


@dataclass(eq=False)
class Evidence:
    """e = mean over the layers of ā(l), at the tokens of one picture (arXiv 2510.17771, Eq. 1).

    ``image``: the original picture, RGB. ``question``: what was asked, if anything.
    ``scores``: [m] float32, e of each of the picture's tokens, separators included.
    ``layout``: how the picture became tokens.
    ``layers``: the layers read, in order; ``layer_scores``: [layers, m] float32, ā(l) of each.
    ``lam``, ``sigma``, ``alpha``: λ of denoising, σ of smoothing, α of highlighting.
    ``stats``: further figures about the capture.

    Raises NaNAttentionError when a layer gave NaN, GeometryError when the scores do not match the layout.
    """

    image: Image.Image
    question: str | None
    scores: NDArray[np.float32]
    layout: ImageLayout
    layers: tuple[int, ...]
    layer_scores: NDArray[np.float32]
    lam: float = 10.0
    sigma: float = 0.5
    alpha: float = 0.5
    stats: dict[str, Any] = field(default_factory=dict)
    _maps: dict[Canvas, NDArray[np.float32]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        self.scores = np.asarray(self.scores, dtype=np.float32)
        self.layer_scores = np.asarray(self.layer_scores, dtype=np.float32)
        self.layers = tuple(self.layers)
        tokens = self.layout.n_tokens
        if self.scores.shape != (tokens,) or self.layer_scores.shape != (len(self.layers), tokens):
            raise GeometryError(
                f"scores {self.scores.shape} and layer_scores {self.layer_scores.shape} do not match "
                f"{len(self.layers)} layers and the layout's {tokens} tokens ({self.layout})."
            )
        if (self.image.height, self.image.width) != tuple(self.layout.original_size):
            raise GeometryError(
                f"The picture has {self.image.height}x{self.image.width} pixels (height x width), its layout was made "
                f"for {self.layout}. Pass the original picture."
            )
        self._check_finite()

    def _check_finite(self) -> None:
        bad = [layer for layer, row in zip(self.layers, self.layer_scores, strict=True) if not np.isfinite(row).all()]
        if bad or not np.isfinite(self.scores).all():
            where = f"layers {bad} of {list(self.layers)}" if bad else "the scores, but no single layer"
            raise NaNAttentionError(
                f"NaN or infinite attention in {where}. Run the model in float32 or bfloat16, or leave these "
                "layers out."
            )

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, cols) of the finest grid over the whole picture."""
        return self.layout.grid_size

    def map(self, canvas: Canvas = "original") -> NDArray[np.float32]:
        """ẽ: [H, W] float32 in [0, 1], read-only and computed once; see :func:`layout_map`.

        ``canvas="original"``: in pixels of the original; ``"input"``: of the resized picture the model saw.
        """
        if canvas not in self._maps:
            computed = layout_map(self.scores, self.layout, self.lam, self.sigma, canvas=canvas)
            computed.setflags(write=False)
            self._maps[canvas] = computed
        return self._maps[canvas]

    def picture(self, canvas: Canvas = "original") -> Image.Image:
        """The original, or what the model saw of it."""
        return input_canvas(self.image, self.layout) if canvas == "input" else self.image

    def highlight(self, canvas: Canvas = "original", alpha: float | None = None) -> Image.Image:
        """The picture with everything else dimmed, see :func:`highlight`. ``alpha`` replaces the evidence's own."""
        return highlight(self.picture(canvas), self.map(canvas), self.alpha if alpha is None else alpha)

    def overlay(self, canvas: Canvas = "original", boxes: Sequence[Box] = ()) -> Image.Image:
        """A heat map for people, see :func:`overlay`. ``boxes`` in original pixels are outlined on top."""
        shown = [on_canvas(box, self.layout, canvas) for box in boxes]
        return overlay(self.picture(canvas), self.map(canvas), shown)

    def top_patches(self, k: int) -> list[Box]:
        """The boxes of the k tokens with the highest scores, best first, (x0, y0, x1, y1) in original pixels.

        Boxes are clipped to the picture; tokens that show none of it (separators, padding) are not counted. Equal
        scores keep the order of the tokens. Scores are taken as captured, before denoising.

        Raises InvalidInputError when k is not between 0 and the number of such patches.
        """
        height, width = self.layout.original_size
        boxes = np.clip(self.layout.token_boxes(), 0, [width, height, width, height])
        visible = np.flatnonzero((boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]))  # NaN compares false
        if not 0 <= k <= len(visible):
            raise InvalidInputError(f"k={k} patches were asked for, but the picture has {len(visible)}.")
        best = visible[np.argsort(-self.scores[visible], kind="stable")[:k]]
        return [(x0, y0, x1, y1) for x0, y0, x1, y1 in boxes[best].tolist()]

    def to_dict(self) -> dict[str, Any]:
        """Everything but the pixels, as plain numbers, lists and dictionaries, ready for JSON."""
        layout = {
            "original_size": list(self.layout.original_size),
            "input_size": list(self.layout.input_size),
            "input_region": list(self.layout.input_region),
            "n_tokens": self.layout.n_tokens,
            "grids": [
                {"region": list(grid.region), "token_index": grid.token_index.tolist()} for grid in self.layout.grids
            ],
        }
        return {
            "question": self.question,
            "scores": self.scores.tolist(),
            "grid": list(self.grid),
            "layers": list(self.layers),
            "layer_scores": self.layer_scores.tolist(),
            "layout": layout,
            "lam": self.lam,
            "sigma": self.sigma,
            "alpha": self.alpha,
            "stats": _plain(self.stats),
        }

    def _repr_png_(self) -> bytes:
        """What a notebook shows."""
        buffer = io.BytesIO()
        self.overlay().save(buffer, format="PNG")
        return buffer.getvalue()


def _plain(value: Any) -> Any:
    """Arrays and tensors → lists and numbers."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.tolist() if hasattr(value, "tolist") else value
