"""Running a model over samples, and choosing the one whose layers are shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vea_sdk.errors import InvalidInputError
from vea_sdk.evaluation.analysis.look import Look
from vea_sdk.evaluation.datasets import Dataset, Record
from vea_sdk.evaluation.runner import evaluate
from vea_sdk.evidence import Evidence
from vea_sdk.grounding.metrics import Rule
from vea_sdk.grounding.samples import Sample, prepare
from vea_sdk.pipeline import VLM


@dataclass(frozen=True)
class Analysis:
    """What :func:`analyze` found.

    ``layers``: those read, all that have softmax attention; ``grounding``: those whose mean is the evidence.
    ``looks``: one per sample, in order. ``shown``: the sample whose layers are drawn, and its evidence of all layers.
    """

    layers: tuple[int, ...]
    grounding: tuple[int, ...]
    looks: tuple[Look, ...]
    shown: tuple[Sample, Evidence] | None = None

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]], grounding: Sequence[int]) -> Analysis:
        """From the rows of :func:`vea_sdk.evaluate` with the method "base", and perhaps "vea"."""
        return cls(tuple(rows[0]["layers"]["layers"]), tuple(grounding), tuple(Look.of(row) for row in rows))


def analyze(
    vlm: VLM,
    samples: Sequence[Sample],
    *,
    results: str | Path | None = None,
    batch: int = 8,
    highlight: bool = True,
    show: str | None = None,
    max_new_tokens: int = 64,
    rule: Rule = "any",
    progress: Callable[[int], object] | None = None,
) -> Analysis:
    """The analysis of "Seeing but Not Believing" (arXiv 2510.17771) for one model.

    Each sample takes one pass that reads ā(l) of all layers, one plain answer, and one about the highlighted picture.

    Args:
        vlm: the model; its layers make the evidence, its prompts ask.
        samples: with answers, and with boxes where the evidence is known.
        results: a file of JSON lines from which an interrupted run goes on, see :func:`vea_sdk.evaluate`.
        batch: samples that run together.
        highlight: False leaves the highlighted picture out.
        show: the id of the sample whose layers are shown (its place where it has none); by default the wrong answer
            whose evidence points best at the truth, "seen but not believed", or else the first sample.
        max_new_tokens: of each answer.
        rule: which patches count as evidence, see :func:`vea_sdk.metrics.patch_labels`.
        progress: called with the number of samples just finished.

    Raises:
        InvalidInputError: there is no sample, or what :func:`vea_sdk.evaluate` refuses, or none is called ``show``.
    """
    # Without opening pictures.
    records: Sequence[Record | Sample] = samples.records if isinstance(samples, Dataset) else samples
    places = {sample.id or str(place): place for place, sample in enumerate(records)}
    if show is not None and show not in places:
        raise InvalidInputError(f"no sample is called {show!r}. Choose among {', '.join(list(places)[:5])}, ...")
    methods = ("base", "vea") if highlight else ("base",)
    evaluation = evaluate(
        vlm,
        samples,
        methods,
        results=results,
        batch=batch,
        max_new_tokens=max_new_tokens,
        rule=rule,
        resamples=1,
        progress=progress,
    )
    found = Analysis.of(evaluation.rows, vlm.layers)
    shown = samples[places[show] if show is not None else _telling(found.looks)]
    sample = prepare(shown, f"sample {shown.id!r}", vlm.max_pixels)
    (everywhere,) = vlm.attend_many([sample.image], [sample.question], layers="all")
    return replace(found, shown=(sample, everywhere))


def _telling(looks: Sequence[Look]) -> int:
    wrong = [(one.auroc, -place) for place, one in enumerate(looks) if not one.right and one.auroc is not None]
    return -max(wrong)[1] if wrong else 0
