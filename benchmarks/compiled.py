"""What capture costs inside torch.compile: decoding with a static cache, one graph without a break, with and without.

    python benchmarks/compiled.py --json

The model of benchmarks/overhead.py under inductor. The graphs are made before the clock starts; what making one costs
is reported beside. No break of a graph is allowed (fullgraph=True), so a run that ends has had none.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import partial
from typing import Any

import reports
import torch
from overhead import PROFILED
from transformers import CompileConfig

from vea_sdk.benchmark import Row, Spread, alternate, ratios, row
from vea_sdk.benchmark.models import Decoder, generate, prompt, random_llava


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--new-tokens", type=int, default=33)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=120, help="for these rounds")
    reports.add_arguments(parser)
    options = parser.parse_args()
    decoder = Decoder()
    model: Any = random_llava(decoder)
    config = CompileConfig(fullgraph=True, mode="default")
    config._compile_all_devices = True  # generate() compiles by itself on a GPU only
    model.generation_config.update(cache_implementation="static", compile_config=config)
    inputs = prompt(model, options.tokens)
    selections = {"off": None, "profiled": list(PROFILED), "all": "all"}
    runs = {name: partial(generate, model, inputs, options.new_tokens, layers) for name, layers in selections.items()}
    shape = {**decoder.as_dict(), "prompt": options.tokens, "new": options.new_tokens}
    rows: list[Row] = []
    with reports.progress(options.rounds) as tick:
        first = {}
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            first[name] = time.perf_counter() - start
        taken = alternate(runs, options.rounds, tick, budget=options.seconds)
    off = [one.decode for one in taken["off"]]
    summary: dict[str, Any] = {"decode_seconds": Spread.of(off).p50}
    for name in ("profiled", "all"):
        spread = ratios([one.decode for one in taken[name]], off)
        layers = "all layers" if name == "all" else f"layers {', '.join(map(str, PROFILED))}"
        extra = first[name] - Spread.of([one.total for one in taken[name]]).p50
        note = f"{summary['decode_seconds']:.3g} s without, {len(off)} rounds; its graph is made in {extra:.1f} s"
        what = f"compiled decoding with capture of {layers} / without"
        rows.append(row(what, spread, "×", shape=shape, dtype=torch.float32, note=note))
        summary[f"{name}_ratio"] = round(spread.p50, 4)
        summary[f"{name}_graph_seconds"] = round(extra, 1)
    reports.finish(rows, "compiled", options)
    if options.json:
        print(json.dumps(summary, indent=2))


if __name__ == "__main__":
    main()
