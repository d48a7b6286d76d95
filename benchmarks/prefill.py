"""P5 and P7 over the prompt's length: prefill plain, captured, stopped early, and with eager attention where it fits.

    python benchmarks/prefill.py --tokens 512 1024 2048 4096
    python benchmarks/prefill.py --tokens 8192 16384 --rounds 1      # minutes
    python benchmarks/prefill.py --plot docs/prefill.png             # needs matplotlib; measures nothing

Rows of lengths measured before are replaced, those of other lengths stay.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import memory
import reports
import torch
from memory import Call
from overhead import PROFILED

from vea_sdk import adapters
from vea_sdk.benchmark import Row, Spread, alternate, load, ratios, row, save
from vea_sdk.benchmark.models import Decoder, prompt, random_llava
from vea_sdk.capture import Session, capture

LENGTHS = (512, 1024, 2048, 4096)
SECONDS = "prefill, seconds: "


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=list(LENGTHS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--plot", type=Path, help="draw the stored rows into this file and stop")
    reports.add_arguments(parser)
    options = parser.parse_args()
    path = options.out / "prefill.json"
    if options.plot:
        plot(load(path), options.plot)
        return
    decoder = Decoder()
    model = random_llava(decoder)
    rows = [one for one in (load(path) if path.exists() else []) if one.shape["prompt"] not in options.tokens]
    with reports.progress(len(options.tokens)) as tick:
        for tokens in options.tokens:
            rows += measure(model, tokens, {**decoder.as_dict(), "prompt": tokens}, options.rounds)
            rows.sort(key=lambda one: int(one.shape["prompt"]))
            save(rows, path)  # now, so that what was measured survives a cut
            tick()
    reports.finish(rows, "prefill", options)


def passes(model: Any, inputs: Any, layers: Sequence[int]) -> dict[str, Call]:
    """Ways through the prompt: plain, with the rows of ``layers`` or of all captured, stopped after the deepest."""
    adapter = adapters.find(model)

    def run() -> None:
        with torch.no_grad():
            model(**inputs, use_cache=False, logits_to_keep=1)

    def captured(chosen: Any) -> None:
        with capture(model, chosen) as session:
            run()
        assert session.attention.shape[0] == (adapter.n_layers if chosen == "all" else len(chosen))

    def attend() -> None:
        with Session(model, layers, "last", None, None, adapter, stop_early=True):
            run()

    return {"off": run, "profiled": partial(captured, layers), "all": partial(captured, "all"), "attend": attend}


def stopped(taken: dict[str, list[float]], layers: Sequence[int], depth: int, **common: Any) -> Row:
    """P7; the limit holds for models whose deepest profiled layer lies at 85% of the stack or less."""
    what = f"pass that stops in layer {max(layers)} of {depth} / plain SDPA prefill"
    limit = 0.9 if max(layers) <= 0.85 * depth else None
    return row(what, ratios(taken["attend"], taken["off"]), "×", target="P7", limit=limit, **common)


def measure(model: Any, tokens: int, shape: dict[str, Any], rounds: int) -> list[Row]:
    inputs = prompt(model, tokens)
    measures = {name: partial(reports.seconds, call) for name, call in passes(model, inputs, PROFILED).items()}
    taken = alternate(measures, rounds, warm_up=rounds > 1)
    common = {"shape": shape, "dtype": torch.float32}
    profiled = f"prefill with capture of layers {', '.join(map(str, PROFILED))} / without"
    seconds = {"plain": taken["off"], "all": taken["all"], "attend": taken["attend"]}
    rows = [
        *(row(SECONDS + name, Spread.of(found), "s", **common) for name, found in seconds.items()),
        row(profiled, ratios(taken["profiled"], taken["off"]), "×", **common),
        row("prefill with capture of all layers / without", ratios(taken["all"], taken["off"]), "×", **common),
        stopped(taken, PROFILED, shape["layers"], **common),
    ]
    if memory.eager_fits(shape["layers"], shape["Hq"], tokens):
        rows += against_eager(model, inputs, shape, rounds)
    return rows


def against_eager(model: Any, inputs: Any, shape: dict[str, Any], rounds: int) -> list[Row]:
    calls = memory.prefills(model, inputs)
    peaks = {name: memory.peak(call) for name, call in calls.items()}
    compared = {name: partial(reports.seconds, calls[name]) for name in ("eager", "capture")}
    taken = alternate(compared, rounds if shape["prompt"] < 4096 else 1, warm_up=False)
    spread = Spread.of(taken["eager"])
    eager = row(f"{SECONDS}eager with output_attentions", spread, "s", shape=shape, dtype=torch.float32)
    return [eager, *memory.rows(ratios(taken["eager"], taken["capture"]), peaks, shape, torch.float32)]


def plot(rows: list[Row], path: Path) -> None:
    """Seconds of prefill against tokens, one line per way."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 4), layout="constrained")
    labels = {
        "eager with output_attentions": "eager attention, weights returned",
        "plain": "SDPA, nothing captured",
        "all": "SDPA, all layers captured",
        "attend": "SDPA, stopped after the deepest profiled layer",
    }
    markers = {"eager with output_attentions": "s", "plain": "o", "all": "x", "attend": "^"}
    for name, label in labels.items():
        points = [(int(one.shape["prompt"]), one.value) for one in rows if one.what == SECONDS + name]
        axes.plot(*zip(*sorted(points), strict=True), marker=markers[name], label=label, alpha=0.8)
    axes.set(xscale="log", xlabel="tokens of the prompt", ylabel="seconds of prefill")
    ticks = sorted({int(one.shape["prompt"]) for one in rows})
    axes.set_xticks(ticks, [f"{n:,}" for n in ticks])
    axes.set_yscale("log", base=2)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=130, metadata={"Software": None})


if __name__ == "__main__":
    main()
