"""Ways from where a model looked to a better answer: gains, harm and controls, on the embedded model.

    python benchmarks/closer.py             (about 20 minutes on two cores)
    python benchmarks/closer.py --count 20  (a share of the pictures)

Every way answers the same questions as the plain first answer; right is an exact match. Pages are those of the seeds
from 2000 on; no setting was chosen on them. p is McNemar's exact test, of a way against the base or a control.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial
from typing import Any

import numpy as np
import reports
import torch
from PIL import Image

import vea_sdk as vea
from vea_sdk import metrics, tiny
from vea_sdk.benchmark import Row, row
from vea_sdk.evaluation.statistics import mcnemar
from vea_sdk.grounding.samples import Sample
from vea_sdk.pipeline.refusals import is_refusal

FIRST = 2000
MANY, FEW = 300, 100
LOOKS = (6, 12, 24, 54)
SUPPORT = 10
Answers = dict[str, Any]
"""Of one picture: by way, whether the answer is right, and other figures."""


@cache
def model() -> vea.VLM:
    return vea.load(tiny.checkpoint(), device="cpu")


def asked(seed: int) -> Sample:
    """The held-out page of a seed and its question."""
    (sample,) = tiny.held_out(1, seed)
    return sample


def changed(seed: int, how: Callable[[Image.Image], Image.Image]) -> Sample:
    sample = asked(seed)
    return Sample(how(sample.image), sample.question, sample.answers, sample.boxes)


SCENES: Mapping[str, Callable[[int], Sample]] = {
    "page at 80%": lambda seed: tiny.scene(seed, 0.8),
    "among others": lambda seed: tiny.scene(seed, 0.8, clutter=True),
    "page at 65%": lambda seed: tiny.scene(seed, 0.65),
    "page fills the picture": asked,
    "not on the page": lambda seed: tiny.scene(seed, 0.8, absent=True),
}
PICTURES: Mapping[str, Callable[[int], Sample]] = {
    "clean": asked,
    "contrast 0.15": lambda seed: changed(seed, lambda image: tiny.low_contrast(image, 0.15)),
    "noise 0.6": lambda seed: changed(seed, lambda image: tiny.noise(image, seed, 0.6)),
    "resolution 0.2": lambda seed: changed(seed, lambda image: tiny.resolution(image, 0.2)),
    "mask 0.1": lambda seed: changed(seed, lambda image: tiny.mask(image, seed, 0.1)),
    "glare 0.15": lambda seed: changed(seed, lambda image: tiny.glare(image, seed, 0.15)),
    "shadow 0.1": lambda seed: changed(seed, lambda image: tiny.shadow(image, seed, 0.1)),
}
ENSEMBLES = ("clean", "contrast 0.15", "noise 0.6", "resolution 0.2")
RENDERED = ("clean", "contrast 0.15", "glare 0.15", "shadow 0.1")
JUDGED = ("clean", "contrast 0.15", "noise 0.6", "resolution 0.2", "mask 0.1")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=None, help="pictures per situation instead of 100 and 300")
    reports.add_arguments(parser)
    options = parser.parse_args()
    few, many = options.count or FEW, options.count or MANY
    tasks: list[tuple[str, str, int]] = []
    for name in SCENES:
        count = many if name == "page fills the picture" else 60 if name == "page at 65%" else few
        tasks += [("scene", name, seed) for seed in range(FIRST, FIRST + min(count, options.count or count))]
    for name in PICTURES:
        tasks += [("picture", name, seed) for seed in range(FIRST, FIRST + (many if name == "clean" else few))]
    found: dict[str, dict[str, list[Answers]]] = {"scene": {}, "picture": {}}
    context = multiprocessing.get_context("spawn")
    with context.Pool(os.cpu_count(), torch.set_num_threads, (1,)) as pool, reports.progress(len(tasks)) as advance:
        for (kind, name, _), answers in zip(tasks, pool.imap(run, tasks), strict=True):
            found[kind].setdefault(name, []).append(answers)
            advance()
    rows = [*closer_rows(found["scene"]), *rendering_rows(found["picture"]), *certainty_rows(found["picture"], few)]
    reports.finish(rows, "closer", options)


def run(task: tuple[str, str, int]) -> Answers:
    """All that is asked about one picture."""
    kind, name, seed = task
    return of_scene(name, SCENES[name](seed)) if kind == "scene" else of_picture(name, PICTURES[name](seed))


def of_scene(name: str, sample: Sample) -> Answers:
    ask = partial(model().ask, sample.image, sample.question, max_new_tokens=24, words=False, mode="closer")
    right = partial(is_right, sample)
    answer = ask()
    found: Answers = {"base": right(answer.baseline), "closer": right(answer.text), "looks": answer.cost.looks}
    told = [one for one in answer.candidates if one.text]
    counted = [(0.0 if is_refusal(one.text or "") else one.certainty or 0.0, one.text or "") for one in told]
    found["closer, no gate"] = right(max(counted, key=lambda one: one[0])[1])
    if name == "not on the page":
        return found
    for way in ("random", "centre", "peak"):
        found[way] = right(ask(rank_by=way).text)
    if name == "page at 80%":
        for looks in LOOKS:
            found[f"{looks} looks"] = right(ask(looks=looks).text)
        early = ask(stop_at=0.9)
        cost = {"stop_at looks": early.cost.looks, "stop_at answers": early.cost.answers}
        found |= {"stop_at": right(early.text)} | cost
    return found


def of_picture(name: str, sample: Sample) -> Answers:
    vlm = model()
    ask = partial(vlm.ask, sample.image, sample.question, max_new_tokens=24, words=False)
    right = partial(is_right, sample)
    base = ask(mode="none")
    found: Answers = {"base": right(base.text), "certainty": base.certainty}
    if name in ENSEMBLES:
        found["ensemble"] = right(ask(mode="ensemble").text)
        moved = vea.views.shifts()(sample.image, base.evidence)[1].image
        found["one roll"] = right(vlm.ask(moved, sample.question, "none", max_new_tokens=24, words=False).text)
    if name in RENDERED:
        found["views"] = right(ask(mode="views").text)
        found["views, by certainty"] = right(ask(mode="views", choose_by="certainty").text)
        for view in vea.views.repairs()(sample.image, base.evidence)[1:]:
            alone = vlm.ask(view.image, sample.question, "none", max_new_tokens=24, words=False)
            found[f"always {view.name}"] = right(alone.text)
    if name in ("clean", "noise 0.6"):
        found["highlight"] = right(ask(mode="highlight").text)
    if name == "clean" and found["base"]:
        support = base.support(SUPPORT)
        found |= {"support": support.difference, "support of others": support.random}
    return found


def is_right(sample: Sample, text: str) -> bool:
    return metrics.exact_match(text, sample.answers) == 1


# --- rows


def closer_rows(scenes: Mapping[str, Sequence[Answers]]) -> Iterable[Row]:
    limits = {"page at 80%": 63.0, "among others": 68.0, "not on the page": 85.0}
    for name, answers in scenes.items():
        n = len(answers)
        of = partial(compared, answers, {"situation": name, "pictures": n})
        yield of("closer", "base", limit=limits.get(name))
        yield of("closer, no gate", "base")
        if name == "not on the page":
            continue
        yield of("closer", "random", gain=12.0 if name in limits else None)
        yield of("random", "base")
        yield of("centre", "base")
        yield of("peak", "base")
        if name == "page at 80%":
            for looks in LOOKS:
                yield of(f"{looks} looks", "base")
            yield of("stop_at", "closer")
            shape = {"situation": name, "pictures": n}
            for what in ("looks", "stop_at looks", "stop_at answers"):
                yield row(f"{what}, mean", float(np.mean([one[what] for one in answers])), "passes", shape=shape)


def rendering_rows(pictures: Mapping[str, Sequence[Answers]]) -> Iterable[Row]:
    gains = {
        ("ensemble", "resolution 0.2"): 15.0,
        ("ensemble", "noise 0.6"): 8.0,
        ("views", "glare 0.15"): 25.0,
        ("views", "shadow 0.1"): 25.0,
        ("ensemble", "clean"): -2.0,
        ("views", "clean"): -2.0,
    }
    for name, answers in pictures.items():
        ways = [way for way in answers[0] if way not in ("base", "certainty") and not way.startswith("support")]
        for way in ways:
            shape = {"situation": name, "pictures": len(answers)}
            yield compared(answers, shape, way, "base", gain=gains.get((way, name)))


def certainty_rows(pictures: Mapping[str, Sequence[Answers]], count: int) -> Iterable[Row]:
    pooled: list[Answers] = []
    for name in JUDGED:
        answers = pictures[name][:count]
        pooled += answers
        share = np.mean([one["base"] for one in answers])
        shape = {"situation": name, "pictures": len(answers)}
        if 0 < share < 1:
            limit = 0.75 if 0.1 <= share <= 0.9 else None
            yield row("AUROC of certainty", auroc(answers), "", limit=limit, better="higher", shape=shape)
    shape = {"situation": "all five", "pictures": len(pooled)}
    yield row("AUROC of certainty", auroc(pooled), "", limit=0.85, better="higher", shape=shape)
    told = [one for one in pictures["clean"] if "support" in one]
    values = np.array([one["support"] for one in told] + [one["support of others"] for one in told])
    labels = np.arange(2 * len(told)) < len(told)
    shape = {"situation": "clean, answered rightly", "pictures": len(told), "k": SUPPORT}
    yield row("AUROC of support: evidence against other patches", metrics.auroc(values, labels), "", shape=shape)
    for name in ("support", "support of others"):
        yield row(f"{name}, mean", float(np.mean([one[name] for one in told])), "nats", shape=shape)


def auroc(answers: Sequence[Answers]) -> float:
    certainty = np.array([one["certainty"] for one in answers])
    return float(metrics.auroc(certainty, np.array([one["base"] for one in answers])))


def compared(
    answers: Sequence[Answers],
    shape: Mapping[str, Any],
    way: str,
    against: str,
    *,
    limit: float | None = None,
    gain: float | None = None,
) -> Row:
    """How many answers of a way are right, or with ``gain`` how many points more, beside another way."""
    first, second = ([bool(one[name]) for one in answers] for name in (against, way))
    gained, lost, p = mcnemar(first, second)
    n = len(answers)
    told = f"{way} against {against} ({100 * np.mean(first):.1f}%): +{gained} −{lost}, p = {p:.2g}"
    if gain is not None:
        points = 100 * (np.mean(second) - np.mean(first))
        return row(f"points gained, {told}", float(points), "points", limit=gain, better="higher", shape=dict(shape))
    share = 100 * float(np.mean(second)) if n else 0.0
    return row(told, share, "% right", limit=limit, better="higher", shape=dict(shape))


if __name__ == "__main__":
    main()
