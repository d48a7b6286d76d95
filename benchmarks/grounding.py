"""The paper's protocol on the embedded model: held-out pictures, clean and spoiled, and why highlighting helps or not.

python benchmarks/grounding.py                 # all parts; about 10 minutes on 2 quiet cores
python benchmarks/grounding.py --parts why     # one of: conditions, why, sinks

Rows are kept under build/grounding, from which an interrupted run goes on; what is committed are the summaries under
benchmarks/results/. `python benchmarks/grounding_page.py` makes docs/grounding.md of them.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from grounding_why import CONDITIONS as WHY_CONDITIONS
from grounding_why import VARIANTS, why
from reports import RESULTS, progress

import vea_sdk as vea
from vea_sdk import tiny
from vea_sdk.benchmark.rows import environment
from vea_sdk.cli.data import open_data
from vea_sdk.evaluation import METHODS, Evaluation, evaluate
from vea_sdk.evaluation.analysis import Analysis, summary
from vea_sdk.evaluation.analysis.summary import curves
from vea_sdk.evaluation.datasets import Dataset
from vea_sdk.grounding import sinks
from vea_sdk.grounding.metrics.answers import edit_distance

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    vlm = vea.load(tiny.checkpoint(), device="cpu")
    for name in options.parts:
        started = time.perf_counter()
        found = PARTS[name](vlm, options.samples)
        seconds = round(time.perf_counter() - started)
        head = {"samples": options.samples, "seconds": seconds, "environment": environment(torch.device("cpu"))}
        options.out.mkdir(parents=True, exist_ok=True)
        text = json.dumps(head | {name: _rounded(found)}, indent=1, ensure_ascii=False, allow_nan=False)
        (options.out / f"grounding-{name}.json").write_text(text + "\n", encoding="utf-8")


def pictures(condition: str, count: int) -> Dataset:
    """The held-out pictures under a condition, as `vea eval --model tiny --degrade CONDITION` takes them."""
    return open_data("tiny", None, count, degrade=None if condition == "clean" else condition)


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
    base = [(row["methods"]["base"]["answer"], row["answers"][0]) for row in run.rows]
    far = [edit_distance(said.lower(), true.lower()) for said, true in base]
    methods = run.to_dict()["methods"]
    shown = ("em", "f1", "auroc", "ndcg", "ap")
    return {
        "methods": {
            name: one | {"metrics": {metric: one["metrics"][metric] for metric in shown}}
            for name, one in methods.items()
        },
        "analysis": summary(analysis),
        "curves": [asdict(point) for point in curves(analysis)],
        "histogram": _histogram(analysis),
        # How far wrong answers are from the truth, in characters: reading or looking?
        "wrong_by_distance": {"1": far.count(1), "2": far.count(2), "more": sum(one > 2 for one in far)},
    }


def _histogram(analysis: Analysis) -> list[list[float]]:
    from vea_sdk.evaluation.analysis.tables import histogram

    return [list(row) for row in histogram(analysis.looks)]


def sink_figures(vlm: vea.VLM, count: int) -> dict[str, Any]:
    """Isolated spikes of every layer under both border rules, on clean pictures."""
    found: dict[str, list[Any]] = {"valid": [], "replicate": []}
    samples = pictures("clean", count)
    with progress(count) as advance:
        for sample in samples:
            (everywhere,) = vlm.attend_many([sample.image], [sample.question], layers="all")
            for border, listed in found.items():
                listed.append(sinks.find(everywhere, vlm.lam, border))  # type: ignore[arg-type]
            advance()
    return {border: [asdict(one) for one in sinks.summarise(listed)] for border, listed in found.items()}


def reasons(vlm: vea.VLM, count: int) -> dict[str, Any]:
    """Exact match of pictures shown in other ways: see grounding_why.py."""
    with progress(len(WHY_CONDITIONS) * len(VARIANTS) * count) as advance:
        return {name: why(vlm, pictures(name, count), TOKENS, advance) for name in WHY_CONDITIONS}


PARTS: dict[str, Callable[[vea.VLM, int], dict[str, Any]]] = {
    "conditions": conditions,
    "why": reasons,
    "sinks": sink_figures,
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
