"""Where a model looked in one picture, and the ways to show it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vea_sdk.adapters.geometry import Box, ImageLayout
from vea_sdk.errors import GeometryError, InvalidInputError, NaNAttentionError
from vea_sdk.evidence import files, regions
from vea_sdk.evidence.canvas import input_canvas
from vea_sdk.evidence.highlighting import highlight
from vea_sdk.evidence.maps import Canvas, layout_map, look_map, on_canvas
from vea_sdk.evidence.overlaying import OPACITY, overlay

_MapKey = tuple[Literal["highlight", "look"], Canvas, float | None]


@dataclass(frozen=True, eq=False, repr=False)
class Evidence:
    """e = mean over the layers of ā(l), at the tokens of one picture (arXiv 2510.17771, Eq. 1).

    ``image``: the original picture, RGB. ``question``: what was asked, if anything.
    ``scores``: [m] float32, e of each of the picture's tokens, separators included.
    ``layout``: how the picture became tokens.
    ``layers``: the layers read, in order; ``layer_scores``: [layers, m] float32, ā(l) of each.
    ``lam``, ``sigma``, ``alpha``: λ of denoising, σ of the highlight's smoothing, α of highlighting.
    ``stats``: row statistics of the capture.
    ``head_scores``: [layers, heads, m] float32, a(l, h) of each head, where heads were kept.

    Nothing of it changes; ``dataclasses.replace`` makes another one. Raises NaNAttentionError when a layer gave NaN,
    GeometryError when the scores do not match the layout.
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
    head_scores: NDArray[np.float32] | None = None
    _maps: dict[_MapKey, NDArray[np.float32]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        for name in ("scores", "layer_scores", "head_scores"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, _kept(getattr(self, name)))
        tokens = self.layout.n_tokens
        if self.scores.shape != (tokens,) or self.layer_scores.shape != (len(self.layers), tokens):
            raise GeometryError(
                f"scores {self.scores.shape} and layer_scores {self.layer_scores.shape} do not match "
                f"{len(self.layers)} layers and the layout's {tokens} tokens ({self.layout})."
            )
        heads = self.head_scores
        if heads is not None and (heads.ndim != 3 or heads[:, 0].shape != self.layer_scores.shape):
            raise GeometryError(
                f"head_scores {heads.shape} are not [layers, heads, tokens] of {self.layer_scores.shape} layer_scores."
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

    def __repr__(self) -> str:
        height, width = self.layout.original_size
        rows, cols = self.grid
        question = "" if self.question is None else f" of {self.question!r}"
        return f"Evidence({rows}x{cols} patches on {width}x{height} pixels, layers {list(self.layers)}{question})"

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, cols) of the finest grid over the whole picture."""
        return self.layout.grid_size

    # -- maps and pictures

    def map(self, canvas: Canvas = "original", *, sigma: float | None = None) -> NDArray[np.float32]:
        """ẽ for highlighting, by the method's σ: [H, W] float32 in [0, 1], read-only; see :func:`layout_map`.

        ``canvas="original"``: in pixels of the original; ``"input"``: of the resized picture the model saw. ``sigma``
        replaces the evidence's own.
        """
        sigma = self.sigma if sigma is None else sigma
        return self._map(("highlight", canvas, sigma))

    def look(self, canvas: Canvas = "original", *, sigma: float | None = None) -> NDArray[np.float32]:
        """The map for people, whose peak lies where the model looked: [H, W] float32 in [0, 1], read-only; see
        :func:`look_map`. ``sigma``: one σ instead of half a cell."""
        return self._map(("look", canvas, sigma))

    def _map(self, key: _MapKey) -> NDArray[np.float32]:
        if key not in self._maps:
            kind, canvas, sigma = key
            if kind == "look":
                computed = look_map(self.scores, self.layout, self.lam, sigma, canvas)
            else:
                assert sigma is not None
                computed = layout_map(self.scores, self.layout, self.lam, sigma, canvas=canvas)
            computed.setflags(write=False)
            self._maps[key] = computed
        return self._maps[key]

    def picture(self, canvas: Canvas = "original") -> Image.Image:
        """The original, or what the model saw of it."""
        return input_canvas(self.image, self.layout) if canvas == "input" else self.image

    def highlight(self, canvas: Canvas = "original", alpha: float | None = None) -> Image.Image:
        """The picture with everything else dimmed, see :func:`highlight`. ``alpha`` replaces the evidence's own."""
        return highlight(self.picture(canvas), self.map(canvas), self.alpha if alpha is None else alpha)

    def overlay(
        self,
        canvas: Canvas = "original",
        boxes: Sequence[Box] | bool = (),
        *,
        legend: bool = False,
        opacity: float = OPACITY,
        sigma: float | None = None,
    ) -> Image.Image:
        """Where the model looked, drawn over the picture, see :func:`overlay`; from :meth:`look`.

        ``boxes`` in original pixels are outlined on top; True draws those of :meth:`boxes`. ``legend`` adds a margin.
        """
        chosen = [region.box for region in self.boxes()] if boxes is True else boxes or ()
        shown = [on_canvas(box, self.layout, canvas) for box in chosen]
        return overlay(self.picture(canvas), self.look(canvas, sigma=sigma), shown, opacity=opacity, legend=legend)

    # -- places

    def boxes(self, threshold: float = 0.5, most: int = 5) -> list[regions.Region]:
        """The parts of the picture that the model looked at, by their share of its attention; see
        :func:`vea_sdk.evidence.regions.regions`."""
        return regions.regions(self.look(), self.scores, self.layout, threshold, most)

    def point(self) -> tuple[float, float] | None:
        """(x, y) in original pixels, the middle of the first of :meth:`boxes`; None where the map is constant."""
        return regions.point(self.look(), self.scores, self.layout)

    def top_patches(self, k: int) -> list[Box]:
        """The boxes of the k tokens with the highest scores, best first, (x0, y0, x1, y1) in original pixels.

        Boxes are clipped to the picture; tokens that show none of it (separators, padding) are not counted. Equal
        scores keep the order of the tokens. Scores are taken as captured, before denoising.

        Raises InvalidInputError when k is not between 0 and the number of such patches.
        """
        boxes = self.layout.visible_boxes()
        visible = np.flatnonzero(boxes[:, 2] > boxes[:, 0])
        if not 0 <= k <= len(visible):
            raise InvalidInputError(f"k={k} patches were asked for, but the picture has {len(visible)}.")
        best = visible[np.argsort(-self.scores[visible], kind="stable")[:k]]
        return [(x0, y0, x1, y1) for x0, y0, x1, y1 in boxes[best].tolist()]

    def score_at(self, x: float, y: float) -> float:
        """The score of the patch that shows a point of the picture, in original pixels; of several, the smallest patch.

        Raises InvalidInputError when the point lies outside the picture; a point that no patch shows has the score 0.
        """
        height, width = self.layout.original_size
        if not (0 <= x < width and 0 <= y < height):
            raise InvalidInputError(f"({x}, {y}) lies outside the picture of {width}x{height} pixels.")
        boxes = self.layout.token_boxes()
        inside = (boxes[:, 0] <= x) & (x < boxes[:, 2]) & (boxes[:, 1] <= y) & (y < boxes[:, 3])
        areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        return float(self.scores[np.where(inside, areas, np.inf).argmin()]) if inside.any() else 0.0

    # -- parts

    def of_layer(self, layer: int) -> Evidence:
        """The evidence of one layer alone. Raises InvalidInputError for a layer that was not read."""
        at = self._at(layer)
        heads = None if self.head_scores is None else self.head_scores[at : at + 1]
        return self._part(layer, at, self.layer_scores[at], heads)

    def of_head(self, layer: int, head: int) -> Evidence:
        """The evidence of one head of a layer. Raises InvalidInputError where heads were not kept, or it is none."""
        at = self._at(layer)
        if self.head_scores is None:
            raise InvalidInputError(
                "the heads were not kept. Use attend(..., heads=True) or capture(..., per_head=True)."
            )
        count = self.head_scores.shape[1]
        if isinstance(head, bool) or not 0 <= head < count:
            raise InvalidInputError(f"head={head} is none of the {count} heads of layer {layer}, counted from 0.")
        row = self.head_scores[at, head]
        return self._part(layer, at, row, row[None, None])

    def _part(self, layer: int, at: int, row: NDArray[np.float32], heads: NDArray[np.float32] | None) -> Evidence:
        stats = {
            name: value[at : at + 1] if np.shape(value)[:1] == (len(self.layers),) else value
            for name, value in self.stats.items()
        }
        return replace(self, scores=row, layers=(layer,), layer_scores=row[None], stats=stats, head_scores=heads)

    def _at(self, layer: int) -> int:
        if layer not in self.layers:
            raise InvalidInputError(f"layer {layer} was not read: there are {list(self.layers)}. Choose one of these.")
        return self.layers.index(layer)

    # -- files

    def to_dict(self) -> dict[str, Any]:
        """Everything but the pixels, as plain numbers, lists and dictionaries, ready for JSON."""
        return files.to_dict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any], image: Image.Image) -> Evidence:
        """What :meth:`to_dict` gave, with its picture. Raises InvalidInputError for anything else."""
        return cls(image=image, **files.fields_of(values))

    def save(self, path: str | Path, image: bool = True) -> None:
        """Write everything into one file (npz, no pickle), the picture as a PNG; without it, it is needed to load."""
        files.save(self, path, image)

    @classmethod
    def load(cls, path: str | Path, image: Image.Image | None = None) -> Evidence:
        """What :meth:`save` wrote, every field equal to the bit, the picture to the pixel.

        ``image``: the picture, where the file was written without it.

        Raises InvalidInputError for a file that is none, or was written by a newer version.
        """
        fields, stored = files.load(path)
        if image is None and stored is None:
            raise InvalidInputError(f"{str(path)!r} was saved without its picture: load it with image=.")
        return cls(image=image or stored, **fields)  # type: ignore[arg-type]

    def to_annotation(self, source: str) -> dict[str, Any]:
        """The boxes as a W3C Web Annotation, JSON-LD, each a media fragment of ``source``, the picture's IRI."""
        return files.to_annotation(self, source)

    def _repr_png_(self) -> bytes:
        """What a notebook shows."""
        buffer = io.BytesIO()
        self.overlay().save(buffer, format="PNG")
        return buffer.getvalue()


def _kept(values: Any) -> NDArray[np.float32]:
    """As float32 that nobody changes: a view of the caller's memory stays writable there, so it is copied."""
    kept = np.array(values, dtype=np.float32)
    kept.setflags(write=False)
    return kept
