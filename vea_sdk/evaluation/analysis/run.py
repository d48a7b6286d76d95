"""Running a model over samples: one pass that looks at all layers, one answer, one more with the evidence shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from vea_sdk.errors import InvalidInputError
from vea_sdk.evaluation.analysis.look import Look, look_at
from vea_sdk.evidence import Evidence
from vea_sdk.grounding.samples import Sample
from vea_sdk.pipeline import VLM


@dataclass(frozen=True)
class Analysis:
    """What :func:`analyze` found.

    ``layers``: those read, all that have softmax attention; ``grounding``: those whose mean is the evidence.
    ``looks``: one per sample, in order. ``shown``, ``shown_everywhere``: the sample whose layers are shown, and its
    evidence of all layers.
    """

    layers: tuple[int, ...]
    grounding: tuple[int, ...]
    looks: tuple[Look, ...]
    shown: Sample
    shown_everywhere: Evidence


def analyze(
    vlm: VLM,
    samples: Sequence[Sample],
    batch: int = 8,
    highlight: bool = True,
    show: str | None = None,
    max_new_tokens: int = 32,
    tick: Callable[[int], object] | None = None,
) -> Analysis:
    """The analysis of "Seeing but Not Believing" (arXiv 2510.17771) for one model.

    Each sample takes one pass that reads ā(l) of all layers, one plain answer, and one about the highlighted picture.

    Args:
        vlm: the model; its layers make the evidence, its prompts ask.
        samples: with answers, and boxes of the evidence where known.
        batch: samples that run together.
        highlight: False leaves the highlighted picture out.
        show: the id of the sample whose layers are shown (its place where it has none); by default the wrong answer
            whose evidence points best at the truth, "seen but not believed", or else the first sample.
        max_new_tokens: of each answer.
        tick: called with the number of samples done since its last call.

    Raises:
        InvalidInputError: there is no sample, two have one id, one has no answer, or none is called ``show``.
    """
    if len(samples) == 0:
        raise InvalidInputError("there is no sample to analyze. Give at least one.")
    if batch < 1:
        raise InvalidInputError(f"batch={batch}: give the number of samples that run together, 1 or more.")
    looks: list[Look] = []
    layers: tuple[int, ...] = ()
    for first in range(0, len(samples), batch):
        part = [samples[place] for place in range(first, min(first + batch, len(samples)))]
        names = [sample.id or str(first + place) for place, sample in enumerate(part)]
        found = _look(vlm, part, names, highlight, max_new_tokens)
        layers = found[0]
        looks += found[1]
        if tick is not None:
            tick(len(part))
    places = {one.id: place for place, one in enumerate(looks)}
    if len(places) < len(looks):
        doubled = next(one.id for place, one in enumerate(looks) if places[one.id] != place)
        raise InvalidInputError(f"two samples are called {doubled!r}. Give every sample an id of its own.")
    if show is not None and show not in places:
        raise InvalidInputError(f"no sample is called {show!r}. Choose among {', '.join(list(places)[:5])}, ...")
    sample = samples[places[show] if show is not None else _telling(looks)]
    (everywhere,) = vlm.attend_many([sample.image], [sample.question], layers="all")
    return Analysis(layers, vlm.layers, tuple(looks), sample, everywhere)


def _look(
    vlm: VLM, part: Sequence[Sample], names: Sequence[str], highlight: bool, max_new_tokens: int
) -> tuple[tuple[int, ...], list[Look]]:
    images, questions = [sample.image for sample in part], [sample.question for sample in part]
    everywhere = vlm.attend_many(images, questions, layers="all")
    evidence = [at_layers(one, vlm.layers) for one in everywhere]
    said = vlm.answer_many(images, [vlm.plain_prompt.format(question=q) for q in questions], max_new_tokens)
    again: list[str] | list[None] = [None] * len(part)
    if highlight:
        prompts = [vlm.highlight_prompt.format(question=question) for question in questions]
        again = vlm.answer_many([one.highlight() for one in evidence], prompts, max_new_tokens)
    looks = [look_at(*row) for row in zip(part, names, everywhere, evidence, said, again, strict=True)]
    return everywhere[0].layers, looks


def at_layers(everywhere: Evidence, layers: Sequence[int]) -> Evidence:
    """The evidence of some of the layers that were read."""
    scores = everywhere.layer_scores[[everywhere.layers.index(layer) for layer in layers]]
    stats = {name: row[[everywhere.layers.index(layer) for layer in layers]] for name, row in everywhere.stats.items()}
    return replace(everywhere, layers=tuple(layers), layer_scores=scores, scores=scores.mean(0), stats=stats)


def _telling(looks: Sequence[Look]) -> int:
    wrong = [(one.auroc, -place) for place, one in enumerate(looks) if not one.right and one.auroc is not None]
    return -max(wrong)[1] if wrong else 0
