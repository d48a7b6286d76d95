"""Shifts: the picture moved by less than a patch, so that patches cut it elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from vea_sdk.errors import InvalidInputError
from vea_sdk.evidence import Evidence
from vea_sdk.views.view import View, Views, whole_box

SHARES = ((1 / 6, 1 / 12), (-1 / 6, -1 / 12), (-1 / 8, 3 / 16), (1 / 8, -3 / 16))
"""Of a patch, across and down: 8, 4, 6 and 9 pixels of a patch of 48."""


def shifts(shares: Sequence[tuple[float, float]] = SHARES) -> Views:
    """The picture itself, then rolls of it: moved by shares of a patch, wrapped around its edges.

    The evidence of a roll maps back but for the strip that wrapped around, which lies beyond the picture's other edge.

    Args:
        shares: (across, down) of a patch of the finest grid of the evidence, positive to the right and down.

    Raises:
        InvalidInputError: a share outside −1 to 1, or views asked for without the evidence that tells a patch's size.
    """
    for across, down in shares:
        if not (-1 <= across <= 1 and -1 <= down <= 1):
            raise InvalidInputError(f"a shift by {(across, down)} patches: give shares of a patch from -1 to 1.")

    def make(image: Image.Image, evidence: Evidence | None = None) -> list[View]:
        if evidence is None:
            raise InvalidInputError("shifts are shares of a patch: pass evidence=vlm.attend(image, question), too.")
        grid = evidence.layout.finest
        x0, y0, x1, y1 = grid.region
        cell_width, cell_height = (x1 - x0) / grid.cols, (y1 - y0) / grid.rows
        rolls = [(round(across * cell_width), round(down * cell_height)) for across, down in shares]
        return [plain(image), *(_roll(image, dx, dy) for dx, dy in rolls)]

    return make


def plain(image: Image.Image) -> View:
    """The picture as it is."""
    return View("plain", whole_box(image), lambda: image)


def _roll(image: Image.Image, dx: int, dy: int) -> View:
    x0, y0, x1, y1 = whole_box(image)
    return View(
        f"shift {dx:+d},{dy:+d}",
        (x0 - dx, y0 - dy, x1 - dx, y1 - dy),
        lambda: Image.fromarray(np.roll(np.asarray(image), (dy, dx), axis=(0, 1))),
    )
