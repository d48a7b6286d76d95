"""What capture costs a whole model on the CPU: generate() with and without it, and against eager attention.

    python benchmarks/overhead.py --json

A decoder of 8 layers, 16 query heads, 4 key heads and head dimension 64 inside LLaVA, random weights, float32; a prompt
of 2,048 tokens, half of them image tokens; 33 greedy tokens. Capturing reads the prompt's row and that of every token.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from typing import Any

import memory
import reports
import torch

from vea_sdk.benchmark import Row, Spread, alternate, ratios, row
from vea_sdk.benchmark.models import Decoder, Taken, generate, prompt, random_llava

PROFILED = (4, 5, 6)  # 3 of 8: the depth where published profiles of larger models lie; the deepest at 75% of the stack
LIMITS = {"profiled": 1.02, "all": 1.05}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--new-tokens", type=int, default=33)
    parser.add_argument("--rounds", type=int, default=40, help="of generate() on and off, at most")
    parser.add_argument("--seconds", type=float, default=95, help="for these rounds")
    parser.add_argument("--eager-rounds", type=int, default=2)
    parser.add_argument("--layers", type=int, nargs="+", default=list(PROFILED), help="the profiled layers")
    reports.add_arguments(parser)
    options = parser.parse_args()
    decoder = Decoder()
    model, tokens = random_llava(decoder), options.tokens
    inputs = prompt(model, tokens)
    shape = {**decoder.as_dict(), "prompt": tokens, "new": options.new_tokens}
    with reports.progress(options.rounds + options.eager_rounds + 1) as tick:
        rows, summary = on_and_off(model, inputs, options, shape, tick)
        more_rows, more = against_eager(model, inputs, options, shape, tick)
    reports.finish([*rows, *more_rows], "overhead", options)
    if options.json:
        print(json.dumps({**summary, **more}, indent=2))


def on_and_off(model: Any, inputs: Any, options: Any, shape: Any, tick: Any) -> tuple[list[Row], dict[str, Any]]:
    """P4: the ratio of generate() with capture to that without, together and apart."""
    measures = {
        "off": partial(generate, model, inputs, options.new_tokens),
        "profiled": partial(generate, model, inputs, options.new_tokens, options.layers),
        "all": partial(generate, model, inputs, options.new_tokens, "all"),
    }
    taken = alternate(measures, options.rounds, tick, budget=options.seconds)
    rows, summary = [], {"profiled_layers": list(options.layers), "tokens": options.tokens}
    for name, limit in LIMITS.items():
        for part in ("total", "prefill", "decode"):
            spread = ratios(_part(taken[name], part), _part(taken["off"], part))
            layers = f"layers {', '.join(map(str, options.layers))}" if name == "profiled" else "all layers"
            what = f"generate() with capture of {layers} / without: {part}"
            note = f"{Spread.of(_part(taken['off'], part)).p50:.3g} s without, {len(taken['off'])} rounds"
            rows.append(row(what, spread, "×", target="P4", limit=limit, shape=shape, dtype=torch.float32, note=note))
            key = f"{name}_ratio" if name == "profiled" else "all_layers_ratio"
            summary[key if part == "total" else f"{key}_{part}"] = round(spread.p50, 4)
            summary.setdefault("spread", {})[f"{name}_{part}"] = [round(spread.p20, 4), round(spread.p80, 4)]
    return rows, summary


def _part(taken: list[Taken], part: str) -> list[float]:
    return [getattr(one, part) for one in taken]


def against_eager(model: Any, inputs: Any, options: Any, shape: Any, tick: Any) -> tuple[list[Row], dict[str, Any]]:
    """P5 at this length: eager attention that returns its weights, against capture of all layers; prefill only."""
    calls = memory.prefills(model, inputs)
    peak = {name: memory.peak(call) for name, call in calls.items()}
    tick()
    compared = {name: partial(reports.seconds, calls[name]) for name in ("eager", "capture")}
    taken = alternate(compared, options.eager_rounds, tick, warm_up=False)
    rows = memory.rows(ratios(taken["eager"], taken["capture"]), peak, shape, torch.float32)
    time_row, memory_row = rows[:2]
    return rows, {
        "eager_ratio": time_row.value,
        "eager_memory_ratio": memory_row.value if memory_row.unit == "×" else None,
        "peak_bytes": peak,
    }


if __name__ == "__main__":
    main()
