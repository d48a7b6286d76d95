"""Why highlighting helps or hurts: the same questions about pictures that differ in one thing.

Each variant is asked about with the pointing prompt, except "base". Between neighbours in the list lies one step: the
prompt (base to inst), darkening alone (inst to dimmed), where it is dark (dimmed to vea), and whether the map is right
(vea to oracle, vea to mirrored). σ and α are swept beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import vea_sdk as vea
from vea_sdk.evaluation.statistics import intervals, mcnemar
from vea_sdk.evidence import Evidence, highlight, layout_map
from vea_sdk.grounding import metrics
from vea_sdk.grounding.samples import Sample

CONDITIONS = ("clean", "noise:0.45", "mask:0.1")
LIGHTS = ("base", "dimmed", "vea", "oracle", "mirrored")
BATCH = 8

Shown = Callable[[Evidence, Sample], Image.Image]
"""The evidence of the grounding layers, and the sample → the picture that is asked about."""


def vea_map(evidence: Evidence, sigma: float | None = None) -> NDArray[np.float32]:
    return layout_map(evidence.scores, evidence.layout, evidence.lam, evidence.sigma if sigma is None else sigma)


def with_vea(sigma: float | None = None, alpha: float | None = None) -> Shown:
    """The method's own highlight, at other settings."""
    return lambda evidence, sample: highlight(
        evidence.image, vea_map(evidence, sigma), evidence.alpha if alpha is None else alpha
    )


def dimmed(evidence: Evidence, sample: Sample) -> Image.Image:
    """The whole picture as bright as the highlighted one is on average: darker, and nothing pointed at."""
    even = np.full_like(vea_map(evidence), vea_map(evidence).mean())
    return highlight(evidence.image, even, evidence.alpha)


def oracle(evidence: Evidence, sample: Sample) -> Image.Image:
    """A map made from the true box: attention that could not be better."""
    labels = metrics.patch_labels(evidence.layout, sample.boxes).astype(np.float32)
    shown = layout_map(labels, evidence.layout, sigma=evidence.sigma, denoise=False)
    return highlight(evidence.image, shown, evidence.alpha)


def mirrored(evidence: Evidence, sample: Sample) -> Image.Image:
    """The evidence map turned by 180 degrees: the same light in a wrong place."""
    return highlight(evidence.image, np.ascontiguousarray(vea_map(evidence)[::-1, ::-1]), evidence.alpha)


VARIANTS: dict[str, Shown] = {
    "base": lambda evidence, sample: evidence.image,
    "inst": lambda evidence, sample: evidence.image,
    "dimmed": dimmed,
    "vea": with_vea(),
    "oracle": oracle,
    "mirrored": mirrored,
    "σ = 0.25": with_vea(sigma=0.25),
    "σ = 0.1": with_vea(sigma=0.1),
    "α = 0.75": with_vea(alpha=0.75),
    "α = 0.25": with_vea(alpha=0.25),
    "α = 0": with_vea(alpha=0.0),
}


def why(vlm: vea.VLM, samples: Sequence[Sample], tokens: int, advance: Callable[[], None]) -> dict[str, Any]:
    """Variant → exact match with its interval, and how many answers changed against "inst"."""
    right: dict[str, list[bool]] = {name: [] for name in VARIANTS}
    for first in range(0, len(samples), BATCH):
        part = list(samples[first : first + BATCH])
        everywhere = vlm.attend_many([one.image for one in part], [one.question for one in part])
        for name, shown in VARIANTS.items():
            prompt = vlm.plain_prompt if name == "base" else vlm.highlight_prompt
            said = vlm.answer_many(
                [shown(evidence, sample) for evidence, sample in zip(everywhere, part, strict=True)],
                [prompt.format(question=one.question) for one in part],
                max_new_tokens=tokens,
            )
            right[name] += [metrics.exact_match(text, one.answers) == 1 for text, one in zip(said, part, strict=True)]
            for _ in part:
                advance()
    return {name: _figures(values, right["inst"]) for name, values in right.items()}


def looks_again(vlm: vea.VLM, samples: Sequence[Sample], advance: Callable[[], None]) -> dict[str, Any]:
    """Variant → where the model looks when it is shown so: AUROC, and how often the top patch is on the evidence.

    If light drew the look, "oracle" would raise both and "mirrored" lower them.
    """
    found: dict[str, list[tuple[float, bool]]] = {name: [] for name in LIGHTS}
    for first in range(0, len(samples), BATCH):
        part = list(samples[first : first + BATCH])
        questions = [one.question for one in part]
        evidence = vlm.attend_many([one.image for one in part], questions)
        for name in LIGHTS:
            shown = [VARIANTS[name](one, sample) for one, sample in zip(evidence, part, strict=True)]
            for again, sample in zip(vlm.attend_many(shown, questions), part, strict=True):
                labels = metrics.patch_labels(again.layout, sample.boxes)
                found[name].append((metrics.auroc(again.scores, labels), bool(labels[again.scores.argmax()])))
                advance()
    return {
        name: {"auroc": float(np.mean([auroc for auroc, _ in rows])), "hits": sum(hit for _, hit in rows)}
        for name, rows in found.items()
    }


def _figures(right: Sequence[bool], before: Sequence[bool]) -> dict[str, Any]:
    low, high = np.asarray(intervals(np.asarray(right, dtype=float))).tolist()
    gained, lost, p = mcnemar(before, right)
    return {"em": float(np.mean(right)), "low": low, "high": high, "gained": gained, "lost": lost, "p": p}
