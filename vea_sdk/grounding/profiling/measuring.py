"""One pass per sample through all layers: how well each layer's attention points at the evidence."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, get_args

from PIL import Image
from torch import nn

from vea_sdk.adapters import Adapter
from vea_sdk.capture.layers import LayerSelection, resolve_layers
from vea_sdk.errors import InvalidInputError, NaNAttentionError
from vea_sdk.evidence import Evidence
from vea_sdk.evidence.denoising import Border
from vea_sdk.fingerprint import fingerprint
from vea_sdk.grounding import metrics
from vea_sdk.grounding.profiling.measurement import NO_BOXES, ONE_CLASS, Measured, Measurement, digest
from vea_sdk.grounding.samples import Sample, prepare
from vea_sdk.grounding.sinks import find
from vea_sdk.journal import Journal
from vea_sdk.profiles import model_name


class Attends(Protocol):
    """What profiling needs of a :class:`vea_sdk.VLM`."""

    model: nn.Module
    max_pixels: int

    @property
    def plain_prompt(self) -> str: ...

    @property
    def lam(self) -> float: ...

    @property
    def adapter(self) -> Adapter: ...

    def attend_many(
        self, images: Sequence[Image.Image], questions: Sequence[str], layers: LayerSelection | None = None
    ) -> list[Evidence]: ...


def measure(
    vlm: Attends,
    samples: Iterable[Sample],
    *,
    layers: LayerSelection = "all",
    rule: metrics.Rule = "any",
    batch: int = 8,
    journal: str | Path | None = None,
    progress: Callable[[int], object] | None = None,
) -> Measurement:
    """AUROC, AP and NDCG of ā(l) against the patches with evidence, for every sample and layer.

    Args:
        vlm: the wrapped model; where another attends for it, that one.
        samples: with boxes; those without an id are known by their place. Opened one batch at a time.
        layers: what to read, by default every layer with softmax attention.
        rule: which patches hold evidence, see :func:`vea_sdk.metrics.patch_labels`.
        batch: samples per pass.
        journal: a file of JSON lines, one per sample, added to as they are done; an interrupted run goes on from it.
            Batches are those of the whole run, so nothing depends on where it stopped.
        progress: called with the number of samples just finished.

    Raises:
        InvalidInputError: there is no sample, none can be ranked, an id comes twice, a box is inverted or outside its
            picture, or the journal is of another run or other samples.
        NaNAttentionError: a layer gave NaN; the sample and layers are named.
    """
    if batch < 1:
        raise InvalidInputError(f"batch={batch} must be at least 1.")
    vlm = getattr(vlm, "attend_with", None) or vlm
    selection = resolve_layers(layers, vlm.adapter)
    done: list[Measured] = []
    seen: set[str] = set()
    remaining = enumerate(samples)
    with Journal(journal, _run_of(vlm, selection, rule)) as kept:
        while items := [_identified(vlm, place, sample, seen) for place, sample in islice(remaining, batch)]:
            known = {name: _kept(kept.rows[name], sample) for name, sample in items if name in kept.rows}
            if len(known) < len(items):
                for row in _measured(vlm, items, selection, rule):
                    if row.id not in known:
                        kept.add(asdict(row))
                        known[row.id] = row
            done += [known[name] for name, _ in items]
            if progress is not None:
                progress(len(items))
    if not done:
        raise InvalidInputError("there is no sample to profile on. Give at least one, such as vea.probes(100).")
    found = Measurement(model_name(vlm.adapter.model), vlm.adapter.n_layers, selection, rule, tuple(done))
    if not found.ranked:
        reasons = ", ".join(f"{count} with {reason}" for reason, count in found.skipped.items())
        raise InvalidInputError(
            f"none of the {len(done)} samples can be ranked: {reasons}. Give boxes that cover part of the picture."
        )
    return found


def _run_of(vlm: Attends, selection: Sequence[int], rule: str) -> dict[str, Any]:
    """What the figures depend on besides the samples."""
    return {
        "model": model_name(vlm.adapter.model),
        "weights": fingerprint(vlm.model),
        "dtype": str(next(vlm.model.parameters()).dtype).removeprefix("torch."),
        "prompt": vlm.plain_prompt,
        "layers": list(selection),
        "rule": rule,
        "lam": vlm.lam,
        "transformers": metadata.version("transformers"),
    }


def _identified(vlm: Attends, place: int, sample: Sample, seen: set[str]) -> tuple[str, Sample]:
    name = sample.id or str(place)
    if name in seen:
        raise InvalidInputError(f"sample {place}: the id {name!r} comes twice. Give every sample its own.")
    seen.add(name)
    return name, prepare(sample, f"sample {name!r}", vlm.max_pixels)


def _measured(
    vlm: Attends, items: Sequence[tuple[str, Sample]], selection: Sequence[int], rule: metrics.Rule
) -> list[Measured]:
    """One batch; samples without boxes are not run."""
    marked = [(name, sample) for name, sample in items if sample.boxes]
    looked = dict(zip((name for name, _ in marked), _look(vlm, marked, selection), strict=True))
    rows = []
    for name, sample in items:
        row = Measured(name, sample.kind, digest(sample), skipped=NO_BOXES)
        rows.append(_figures(row, looked[name], sample, vlm.lam, rule) if name in looked else row)
    return rows


def _look(vlm: Attends, items: Sequence[tuple[str, Sample]], selection: Sequence[int]) -> list[Evidence]:
    try:
        return vlm.attend_many(
            [sample.image for _, sample in items], [sample.question for _, sample in items], list(selection)
        )
    except NaNAttentionError as error:
        if len(items) > 1:  # one by one, to name the sample
            for item in items:
                _look(vlm, [item], selection)
            raise
        raise NaNAttentionError(
            f"sample {items[0][0]!r}: {error} For profiling: layers=[...] reads the others only."
        ) from error


def _figures(row: Measured, evidence: Evidence, sample: Sample, lam: float, rule: metrics.Rule) -> Measured:
    labels = metrics.patch_labels(evidence.layout, sample.boxes, rule)
    sinks = {border: tuple(find(evidence, lam, border, labels)) for border in get_args(Border)}
    if labels.all() or not labels.any():
        return replace(row, sinks=sinks, skipped=ONE_CLASS)
    scores = evidence.layer_scores
    return replace(
        row,
        auroc=tuple(metrics.auroc(one, labels) for one in scores),
        average_precision=tuple(metrics.average_precision(one, labels) for one in scores),
        ndcg=tuple(metrics.ndcg(one, labels) for one in scores),
        sinks=sinks,
        skipped=None,
    )


def _kept(row: dict[str, Any], sample: Sample) -> Measured:
    """What the journal holds, if it is about this very sample."""
    try:
        kept = Measured.from_dict(row)
    except (KeyError, TypeError) as error:
        raise InvalidInputError(f"the journal's row {row['id']!r} is broken: {error!r}. Delete its line.") from error
    if kept.digest != digest(sample):
        raise InvalidInputError(
            f"sample {kept.id!r}: the journal holds figures of another picture, question or boxes under this id. "
            "Choose another journal, or delete it."
        )
    return kept
