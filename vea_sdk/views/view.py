"""One view of a picture, and its geometry back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

from PIL import Image

from vea_sdk.adapters.geometry import Box, ImageLayout, PatchGrid
from vea_sdk.evidence import Evidence


@dataclass(frozen=True, eq=False)
class View:
    """A picture that is made from another one.

    ``name``: what it is, such as "levels". ``box``: the part of the original that it shows, in original pixels; beyond
    the picture's edges where it was moved. ``render``: makes its picture, so that many views take no memory.
    """

    name: str
    box: Box
    render: Callable[[], Image.Image] = field(repr=False)

    @property
    def image(self) -> Image.Image:
        """The view's picture, made anew each time."""
        return self.render()

    def original_layout(self, layout: ImageLayout, original_size: tuple[int, int]) -> ImageLayout:
        """How the view's tokens tile the original picture, from how they tile the view.

        A point (x, y) of a view of w × h pixels lies at (x0 + x·(x1 − x0)/w, y0 + y·(y1 − y0)/h) of the original.

        Args:
            layout: of the view's picture.
            original_size: (height, width) of the original.
        """
        x0, y0, x1, y1 = self.box
        height, width = layout.original_size
        across, down = (x1 - x0) / width, (y1 - y0) / height

        def moved(box: Box) -> Box:
            left, top, right, bottom = box
            return x0 + left * across, y0 + top * down, x0 + right * across, y0 + bottom * down

        grids = tuple(PatchGrid(moved(grid.region), grid.token_index) for grid in layout.grids)
        return replace(layout, original_size=original_size, input_region=moved(layout.input_region), grids=grids)

    def on_original(self, evidence: Evidence, original: Image.Image) -> Evidence:
        """Evidence of the view as evidence of the whole picture: what it does not show has no patch, and no score."""
        layout = self.original_layout(evidence.layout, (original.height, original.width))
        return replace(evidence, image=original, layout=layout)


class Views(Protocol):
    """A generator of views: a picture, and where a model looked in it, to views of it."""

    def __call__(self, image: Image.Image, evidence: Evidence | None = None) -> list[View]: ...


def whole_box(image: Image.Image) -> Box:
    """The box of all of a picture."""
    return 0.0, 0.0, float(image.width), float(image.height)
