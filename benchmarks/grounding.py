"""The paper's protocol on the embedded model: held-out pictures, clean and spoiled, and why highlighting helps or not.

python benchmarks/grounding.py                 # all parts; 10 to 35 minutes, by what else runs
python benchmarks/grounding.py --parts why     # some of: conditions, why, light, profiles

Rows are kept under build/grounding, from which an interrupted run goes on; what is committed are the summaries under
benchmarks/results/. `python benchmarks/grounding_page.py` makes docs/grounding.md of them.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from grounding_why import CONDITIONS as WHY_CONDITIONS
from grounding_why import LIGHTS, VARIANTS, looks_again, why
from reports import RESULTS, progress

import vea_sdk as vea
from vea_sdk import tiny
from vea_sdk.benchmark.rows import environment
from vea_sdk.cli.data import degraded
from vea_sdk.evaluation import METHODS, Evaluation, evaluate
from vea_sdk.evaluation.analysis import Analysis, summary
from vea_sdk.evaluation.analysis.summaries import curves
from vea_sdk.evaluation.analysis.tables import histogram
from vea_sdk.evaluation.datasets import Dataset
from vea_sdk.grounding import sinks
from vea_sdk.grounding.metrics import patch_labels
from vea_sdk.grounding.metrics.answers import edit_distance
from vea_sdk.grounding.profiling import measure, profile_of, stability
from vea_sdk.tiny import compose

ROWS = Path(__file__).parents[1] / "build" / "grounding"
TOKENS = 24  # the longest value has 16 characters

CONDITIONS = {  # what is done to the pictures: whether the ablations run, too
    "clean": True,
    "noise:0.15": False,
    "noise:0.3": True,
    "noise:0.45": False,
    "noise:0.6": True,
    "resolution:0.25": False,
    "resolution:0.2": True,
    "resolution:0.15": False,
    "mask:0.1": True,
    "mask:0.2": False,
    "mask:0.3": False,
}
PROFILE_COUNT = 100
PROFILED = {  # seed of `vea profile --model tiny --seed`, condition
    "clean, seed 0": (0, "clean"),
    "clean, seed 1": (1, "clean"),
    "clean, seed 2": (2, "clean"),
    "noise:0.6, seed 0": (0, "noise:0.6"),
    "mask:0.3, seed 0": (0, "mask:0.3"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--out", type=Path, default=RESULTS / "grounding")
    options = parser.parse_args()
    vlm = vea.load(tiny.checkpoint(), device="cpu")
    for name in options.parts:
        kept = name == "conditions" and any(ROWS.glob("*.jsonl"))
        started = time.perf_counter()
        found = PARTS[name](vlm, options.samples)
        seconds = None if kept else round(time.perf_counter() - started)  # a run that goes on says nothing of the whole
        count = PROFILE_COUNT if name == "profiles" else options.samples
        head = {"samples": count, "seconds": seconds, "environment": environment(torch.device("cpu"))}
        options.out.mkdir(parents=True, exist_ok=True)
        text = json.dumps(head | {name: _rounded(found)}, indent=1, ensure_ascii=False, allow_nan=False)
        (options.out / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def pictures(condition: str, count: int) -> Dataset:
    """The held-out pictures under a condition, as `vea eval --model tiny --degrade CONDITION` takes them."""
    return spoiled(tiny.held_out(count), condition)


def spoiled(samples: Dataset, condition: str) -> Dataset:
    return samples if condition == "clean" else degraded(samples, condition, seed=0)


def conditions(vlm: vea.VLM, count: int) -> dict[str, Any]:
    """Every method under every condition, and the layers' figures."""
    found = {}
    with progress(len(CONDITIONS) * count) as advance:
        for name, ablations in CONDITIONS.items():
            methods = list(METHODS) if ablations else ["base", "inst", "vea"]
            kept = ROWS / f"{name.replace(':', '-')}-{count}.jsonl"
            run = evaluate(
                vlm,
                pictures(name, count),
                methods,
                results=kept,
                max_new_tokens=TOKENS,
                progress=lambda done: [advance() for _ in range(done)],
            )
            found[name] = _condition(run, vlm)
    return found


def _condition(run: Evaluation, vlm: vea.VLM) -> dict[str, Any]:
    analysis = Analysis.of(run.rows, vlm.layers)
    methods = run.to_dict()["methods"]
    shown = ("em", "f1", "auroc", "ndcg", "ap")
    return {
        "methods": {
            name: one | {"metrics": {metric: one["metrics"][metric] for metric in shown}}
            for name, one in methods.items()
        },
        "analysis": summary(analysis),
        "curves": [asdict(point) for point in curves(analysis)],
        "histogram": [list(row) for row in histogram(analysis.looks)],
        "wrong": _wrong(analysis),
    }


def _wrong(analysis: Analysis) -> dict[str, int]:
    """What the wrong plain answers are: the value misread, another entry read instead, or neither."""
    kinds = Counter({"misread": 0, "another entry": 0, "neither": 0})
    for look in analysis.looks:
        if look.right:
            continue
        said, (true,) = look.baseline.lower(), look.answers
        others = [value.lower() for value in compose(int(look.id)).values if value != true]
        near = edit_distance(said, true.lower())
        nearest = min((edit_distance(said, other) for other in others), default=len(said))
        kinds["misread" if near <= min(2, nearest) else "another entry" if nearest <= 1 else "neither"] += 1
    return dict(kinds)


def profiles(vlm: vea.VLM, count: int) -> dict[str, Any]:
    """The choice of layers on three sets of pictures set aside for profiling, and on spoiled ones; sinks of each."""
    found = {}
    with progress(len(PROFILED) * PROFILE_COUNT) as advance:
        for name, (seed, condition) in PROFILED.items():
            drawn = tiny.profiling_set(PROFILE_COUNT, seed)
            measured = measure(vlm, spoiled(drawn, condition), progress=lambda done: [advance() for _ in range(done)])
            chosen = profile_of(measured)
            borders = {border: [one.sinks[border] for one in measured.samples] for border in ("valid", "replicate")}
            found[name] = {
                "layers": list(chosen.layers),
                "auroc": [list(row) for row in zip(chosen.auroc, chosen.auroc_low, chosen.auroc_high, strict=True)],
                "chosen_share": list(chosen.chosen_share),
                "stability": [asdict(one) for one in stability(measured)],
                "sinks": {name: [asdict(one) for one in sinks.summarise(listed)] for name, listed in borders.items()},
                "sinks_on_evidence": _on_evidence(borders["valid"], drawn),
            }
    return found


def _on_evidence(found: Sequence[Sequence[sinks.LayerSinks]], samples: Dataset) -> list[float | None]:
    """Per layer, the share of the sinks that lie on the evidence: what is removed there is no noise."""
    hits: dict[int, list[bool]] = {}
    for picture, record in zip(found, samples.records, strict=True):
        for layer in picture:
            boxes = [sink.box for sink in layer.sinks]
            hits.setdefault(layer.layer, []).extend(patch_labels(boxes, record.boxes).tolist() if boxes else [])
    return [sum(listed) / len(listed) if listed else None for listed in hits.values()]


def reasons(vlm: vea.VLM, count: int) -> dict[str, Any]:
    """Exact match of pictures shown in other ways: see grounding_why.py."""
    with progress(len(WHY_CONDITIONS) * len(VARIANTS) * count) as advance:
        return {name: why(vlm, pictures(name, count), TOKENS, advance) for name in WHY_CONDITIONS}


def light(vlm: vea.VLM, count: int) -> dict[str, Any]:
    """Where the model looks in pictures that are lit: see grounding_why.py."""
    with progress(len(WHY_CONDITIONS) * len(LIGHTS) * count) as advance:
        return {name: looks_again(vlm, pictures(name, count), advance) for name in WHY_CONDITIONS}


PARTS: dict[str, Callable[[vea.VLM, int], dict[str, Any]]] = {
    "conditions": conditions,
    "why": reasons,
    "light": light,
    "profiles": profiles,
}


def _rounded(value: Any) -> Any:
    """Five digits everywhere: the files are for reading and comparing."""
    if isinstance(value, dict):
        return {name: _rounded(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(part) for part in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


if __name__ == "__main__":
    main()
