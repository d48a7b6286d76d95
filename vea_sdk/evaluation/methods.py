"""The ways of asking that are compared: the paper's three, and what each part of its method is worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vea_sdk.errors import InvalidInputError
from vea_sdk.evidence import Evidence, highlight, layout_map
from vea_sdk.evidence.denoise import denoised


@dataclass(frozen=True)
class Method:
    """One way of asking.

    ``pointing``: the prompt points at the highlighted region, else it is the plain one. ``highlighted``: the picture
    is, else it is the original. ``profiled``: the evidence is the mean over the wrapped layers, else over all.
    ``denoise``, ``smooth``: whether Eq. 2 and Eq. 3 of the method are applied to the evidence.
    """

    name: str
    pointing: bool = True
    highlighted: bool = True
    profiled: bool = True
    denoise: bool = True
    smooth: bool = True

    def scores(self, evidence: Evidence, layers: Sequence[int]) -> NDArray[np.float32]:
        """[tokens] e = mean of ā(l) over this method's layers.

        Args:
            evidence: of all layers.
            layers: the wrapped ones, among them.
        """
        rows = [evidence.layers.index(layer) for layer in layers] if self.profiled else slice(None)
        return np.asarray(evidence.layer_scores[rows].mean(0))

    def picture(self, evidence: Evidence, layers: Sequence[int]) -> Image.Image:
        """What the model is shown. Arguments: see :meth:`scores`."""
        if not self.highlighted:
            return evidence.image
        scores = self.scores(evidence, layers)
        shown = layout_map(
            scores, evidence.layout, evidence.lam, evidence.sigma, denoise=self.denoise, smooth=self.smooth
        )
        return highlight(evidence.image, shown, evidence.alpha)

    def token_scores(self, evidence: Evidence, layers: Sequence[int]) -> NDArray[np.float32]:
        """[tokens] the scores that attribution is judged by: denoised where the method does so, not yet smoothed."""
        scores = self.scores(evidence, layers)
        if self.denoise:
            for grid in evidence.layout.grids:
                scores[grid.token_index] = denoised(scores[grid.token_index], evidence.lam)
        return scores


METHODS = {
    method.name: method
    for method in (
        Method("base", pointing=False, highlighted=False),
        Method("inst", highlighted=False),
        Method("vea"),
        Method("no-denoise", denoise=False),
        Method("no-smooth", smooth=False),
        Method("no-profiling", profiled=False),
        Method("no-prompt", pointing=False),
    )
}
"""By name: ``base``, the plain question; ``inst``, the pointing prompt on the original picture; ``vea``, the whole
method; and the method without one of its parts."""


def resolve_methods(methods: Sequence[str | Method]) -> tuple[Method, ...]:
    """Methods from their names; a :class:`Method` of your own stands for itself.

    Raises InvalidInputError for none, an unknown name, or one that comes twice.
    """
    found: dict[str, Method] = {}
    for given in methods:
        method = METHODS.get(given) if isinstance(given, str) else given
        if method is None:
            raise InvalidInputError(f"method {given!r} is unknown. Choose among {', '.join(METHODS)}.")
        if method.name in found:
            raise InvalidInputError(f"method {method.name!r} was given twice.")
        found[method.name] = method
    if not found:
        raise InvalidInputError(f"no method was given. Choose among {', '.join(METHODS)}.")
    return tuple(found.values())
