"""Ask a model the same questions in several ways, from one look at every picture."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vea_sdk.errors import InvalidInputError, NaNAttentionError
from vea_sdk.evaluation.datasets.dataset import Dataset, Record
from vea_sdk.evaluation.identity import describe
from vea_sdk.evaluation.layers import layer_figures
from vea_sdk.evaluation.methods import Method, resolve_methods
from vea_sdk.evaluation.result import Evaluation
from vea_sdk.evaluation.scoring import Seen, check_seen, places, score
from vea_sdk.evaluation.summary import summarise
from vea_sdk.evidence import Evidence
from vea_sdk.grounding.metrics import Rule, patch_labels
from vea_sdk.grounding.samples import Sample, prepare
from vea_sdk.journal import Journal
from vea_sdk.pipeline import VLM, Answer
from vea_sdk.pipeline.generation import Generated
from vea_sdk.prompts import fill

_Item = tuple[str, Sample | Record]


def evaluate(
    vlm: VLM,
    samples: Iterable[Sample],
    methods: Sequence[str | Method] = ("base", "inst", "vea"),
    *,
    results: str | Path | None = None,
    batch: int = 8,
    max_new_tokens: int = 64,
    rule: Rule = "any",
    seen_by: Seen = "auroc",
    seen_threshold: float = 0.5,
    seed: int = 0,
    resamples: int = 10_000,
    progress: Callable[[int], object] | None = None,
) -> Evaluation:
    """Compare ways of asking (:data:`vea_sdk.evaluation.METHODS`) on samples with known answers.

    Every picture is attended to once, on the plain question and through all layers, and the evidence of every method
    is made from that. The first method is the one the others are compared with.

    Args:
        vlm: the model, see :func:`vea_sdk.wrap`; its layers, λ, σ, α and prompts are used.
        samples: a :class:`Dataset`, whose pictures are opened as they come, or any samples. Those without boxes have no
            AUROC, those without answers are refused. A sample without an id is known by its place.
        methods: names, or methods of your own.
        results: a file of JSON lines, one per sample, added to as they are done. An interrupted run goes on from it:
            batches are those of the whole data set, so nothing depends on where it stopped.
        batch: samples per batch.
        max_new_tokens: the longest answer.
        rule: which patches count as evidence, see :func:`vea_sdk.metrics.patch_labels`.
        seen_by, seen_threshold: when evidence counts as seen, see :func:`vea_sdk.evaluation.score`.
        seed, resamples: of the bootstrap.
        progress: called with the number of samples just finished.

    Raises:
        InvalidInputError: there is no sample, an id comes twice, a sample has no answer or a box outside its picture;
            ``results`` belongs to another run or other data; a method is unknown.
    """
    started = time.perf_counter()
    chosen = resolve_methods(methods)
    check_seen(seen_by, seen_threshold)
    if batch < 1:
        raise InvalidInputError(f"batch={batch} must be at least 1.")
    judged = {"rule": rule, "seen_by": seen_by, "seen_threshold": seen_threshold}
    data = samples.name if isinstance(samples, Dataset) else None
    run = describe(vlm) | {"data": data, "methods": [asdict(method) for method in chosen]}
    run |= {"max_new_tokens": max_new_tokens} | judged
    ids, resumed = [], 0
    with Journal(results, run) as journal:
        for items in _batches(_identified(samples), batch):
            ids += [name for name, _ in items]
            for name, item in items:
                _check_kept(journal.rows.get(name), item)
            missing = [name for name, _ in items if name not in journal.rows]
            resumed += len(items) - len(missing)
            if missing:
                opened = [(name, _opened(name, item, vlm.max_pixels)) for name, item in items]
                for row in _ask(vlm, opened, chosen, max_new_tokens, rule, seen_by, seen_threshold):
                    if row["id"] in missing:
                        journal.add(row)
            if progress is not None:
                progress(len(items))
        rows = [journal.rows[name] for name in ids]
    if not rows:
        raise InvalidInputError("there is no sample to evaluate on.")
    summary = summarise(rows, [method.name for method in chosen], resamples, seed)
    return Evaluation(summary, rows, run, time.perf_counter() - started, resumed)


def _identified(samples: Iterable[Sample]) -> Iterator[_Item]:
    seen: set[str] = set()
    items: Iterable[Sample | Record] = samples.records if isinstance(samples, Dataset) else samples
    for number, item in enumerate(items):
        name = item.id or str(number)
        if name in seen:
            raise InvalidInputError(f"sample {number}: the id {name!r} comes twice. Give every sample its own.")
        seen.add(name)
        if not item.answers:
            raise InvalidInputError(f"sample {name!r} has no accepted answer to compare with. Leave it out.")
        yield name, item


def _batches(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    batch: list[_Item] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _opened(name: str, item: Sample | Record, max_pixels: int) -> Sample:
    if isinstance(item, Record):
        return prepare(item.sample(), item.where, max_pixels)
    return prepare(item, f"sample {name!r}", max_pixels)


def _check_kept(row: dict[str, Any] | None, item: Sample | Record) -> None:
    """A row that was kept must be about the sample that has its id now."""
    if row is None:
        return
    now = {"question": item.question, "answers": list(item.answers)}
    kept = {name: row.get(name) for name in now}
    if kept != now:
        raise InvalidInputError(
            f"sample {row['id']!r}: the results kept are about {kept}, the data now say {now}. Choose another file of "
            "results, or delete it."
        )


def _ask(
    vlm: VLM,
    samples: Sequence[tuple[str, Sample]],
    methods: Sequence[Method],
    max_new_tokens: int,
    rule: Rule,
    seen_by: Seen,
    seen_threshold: float,
) -> list[dict[str, Any]]:
    """One batch: a look at every picture, then every method's answers."""
    questions = [sample.question for _, sample in samples]
    for name, sample in samples:
        try:
            vlm.check_texts(sample.question)
        except InvalidInputError as error:
            raise InvalidInputError(f"sample {name!r}: {error}") from error
    try:
        looked = vlm.attend_many([sample.image for _, sample in samples], questions, layers="all")
    except NaNAttentionError as error:
        raise NaNAttentionError(f"one of the samples {', '.join(name for name, _ in samples)}: {error}") from error
    labels = [
        patch_labels(evidence.layout, sample.boxes, rule) for evidence, (_, sample) in zip(looked, samples, strict=True)
    ]
    rows: list[dict[str, Any]] = [
        {
            "id": name,
            "kind": sample.kind,
            "question": sample.question,
            "answers": list(sample.answers),
            "boxes": [list(box) for box in sample.boxes],
            "layers": layer_figures(evidence, positive),
            "methods": {},
        }
        for (name, sample), evidence, positive in zip(samples, looked, labels, strict=True)
    ]
    for method in methods:
        answers = _answers(vlm, method, looked, questions, max_new_tokens)
        for row, answer, evidence, positive, (_, sample) in zip(rows, answers, looked, labels, samples, strict=True):
            scores = method.token_scores(evidence, vlm.layers)
            found = places(method.evidence(evidence, vlm.layers), sample.boxes)
            row["methods"][method.name] = score(
                answer.text, row["answers"], scores, positive, seen_by, seen_threshold, found, answer.certainty
            )
    return rows


def _answers(
    vlm: VLM, method: Method, looked: Sequence[Evidence], questions: Sequence[str], max_new_tokens: int
) -> Sequence[Generated | Answer[Any]]:
    """What the model says by one method."""
    pictures = [method.picture(evidence, vlm.layers) for evidence in looked]
    if method.mode is not None:
        options = dict(method.options) | {"words": False, "batch_size": 16}
        return vlm.ask_many(pictures, questions, method.mode, max_new_tokens, **options)
    template = vlm.highlight_prompt if method.pointing else vlm.plain_prompt
    prompts = [fill(template, question) for question in questions]
    return vlm.generate_many(pictures, prompts, max_new_tokens=max_new_tokens)
