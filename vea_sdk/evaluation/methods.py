"""The ways of asking that are compared: the paper's three, and what each part of its method is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vea_sdk.errors import InvalidInputError
from vea_sdk.evidence import Evidence, highlight, layout_map
from vea_sdk.evidence.constants import Constants
from vea_sdk.evidence.denoising import denoised
from vea_sdk.pipeline import Mode


@dataclass(frozen=True)
class Method:
    """One way of asking.

    ``pointing``: the prompt points at the highlighted region, else it is the plain one. ``highlighted``: the picture
    is, else it is the original. ``profiled``: the evidence is the mean over the wrapped layers, else over all.
    ``denoise``, ``smooth``: whether Eq. 2 and Eq. 3 of the method are applied to the evidence. ``lam``, ``sigma``,
    ``alpha``: λ, σ and α in place of the wrapped ones. ``mode``, ``options``: a mode of :meth:`VLM.ask` and what it is
    told, which then says how the picture is shown; the evidence is that of the plain question.
    """

    name: str
    pointing: bool = True
    highlighted: bool = True
    profiled: bool = True
    denoise: bool = True
    smooth: bool = True
    lam: float | None = None
    sigma: float | None = None
    alpha: float | None = None
    mode: Mode | None = None
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def constants(self, evidence: Evidence) -> Constants:
        """λ, σ and α of the method: its own, else those of the evidence."""
        return Constants(evidence.lam, evidence.sigma, evidence.alpha).changed(self.lam, self.sigma, self.alpha)

    def evidence(self, evidence: Evidence, layers: Sequence[int]) -> Evidence:
        """Where the model looked by this method's layers and λ. Arguments: see :meth:`scores`."""
        rows = self._rows(evidence, layers)
        chosen = evidence.layer_scores[rows]
        numbers = tuple(np.array(evidence.layers)[rows].tolist())
        lam = self.constants(evidence).lam if self.denoise else float("inf")
        return replace(evidence, scores=chosen.mean(0), layers=numbers, layer_scores=chosen, lam=lam, stats={})

    def _rows(self, evidence: Evidence, layers: Sequence[int]) -> list[int] | slice:
        return [evidence.layers.index(layer) for layer in layers] if self.profiled else slice(None)

    def scores(self, evidence: Evidence, layers: Sequence[int]) -> NDArray[np.float32]:
        """[tokens] e = mean of ā(l) over this method's layers.

        Args:
            evidence: of all layers.
            layers: the wrapped ones, among them.
        """
        return np.asarray(evidence.layer_scores[self._rows(evidence, layers)].mean(0))

    def picture(self, evidence: Evidence, layers: Sequence[int]) -> Image.Image:
        """What the model is shown. Arguments: see :meth:`scores`."""
        if not self.highlighted:
            return evidence.image
        lam, sigma, alpha = self.constants(evidence)
        scores = self.scores(evidence, layers)
        shown = layout_map(scores, evidence.layout, lam, sigma, denoise=self.denoise, smooth=self.smooth)
        return highlight(evidence.image, shown, alpha)

    def token_scores(self, evidence: Evidence, layers: Sequence[int]) -> NDArray[np.float32]:
        """[tokens] the scores that attribution is judged by: denoised where the method does so, not yet smoothed."""
        scores = self.scores(evidence, layers)
        if self.denoise:
            for grid in evidence.layout.grids:
                scores[grid.token_index] = denoised(scores[grid.token_index], self.constants(evidence).lam)
        return scores


_MODES: tuple[Mode, ...] = ("closer", "views", "ensemble")

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

WAYS = {
    method.name: method
    for method in (
        *(Method(mode, pointing=False, highlighted=False, mode=mode) for mode in _MODES),
        *(
            Method(f"closer-{name}", pointing=False, highlighted=False, mode="closer", options={"rank_by": name})
            for name in ("random", "centre", "peak")
        ),
        Method("closer-ungated", pointing=False, highlighted=False, mode="closer", options={"min_certainty": None}),
    )
}
"""By name, too: ``closer``, ``views``, ``ensemble``: the modes of ``ask``; and as many windows without attention:
``closer-random`` ones, in the ``-centre``, on the ``-peak`` of the first look, gated alike; ``closer-ungated``: what is
surer than the first answer."""


def resolve_methods(methods: Sequence[str | Method]) -> tuple[Method, ...]:
    """Methods from their names; a :class:`Method` of your own stands for itself.

    Raises InvalidInputError for none, an unknown name, or one that comes twice.
    """
    found: dict[str, Method] = {}
    for given in methods:
        method = (METHODS | WAYS).get(given) if isinstance(given, str) else given
        if method is None:
            raise InvalidInputError(f"method {given!r} is unknown. Choose among {', '.join(METHODS | WAYS)}.")
        if method.name in found:
            raise InvalidInputError(f"method {method.name!r} was given twice.")
        found[method.name] = method
    if not found:
        raise InvalidInputError(f"no method was given. Choose among {', '.join(METHODS | WAYS)}.")
    return tuple(found.values())


def sweep(*, sigma: Sequence[float] = (), alpha: Sequence[float] = (), lam: Sequence[float] = ()) -> tuple[Method, ...]:
    """The whole method with every combination of these constants, named such as ``vea[sigma=0.1,alpha=0.5]``.

    All are made from one look at every picture, so a combination costs its answers and nothing else. A constant that is
    not given is the wrapped one.

    Raises InvalidInputError for a constant that cannot be, or that comes twice.
    """
    axes = {"sigma": sigma, "alpha": alpha, "lam": lam}
    for name, values in axes.items():
        for value in values:
            Constants().changed(**({"lam": None, "sigma": None, "alpha": None} | {name: value}))
        if len(set(values)) < len(values):
            raise InvalidInputError(f"{name}={list(values)} names a value twice.")
    named = [[(name, float(value)) for value in values] for name, values in axes.items() if len(values)]
    if not named:
        raise InvalidInputError("nothing to sweep over: give sigma=, alpha= or lam=.")
    return tuple(
        Method(f"vea[{','.join(f'{name}={value:g}' for name, value in chosen)}]", **dict(chosen))  # type: ignore[arg-type]
        for chosen in product(*named)
    )
