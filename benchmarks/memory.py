"""P5: a prefill with eager attention that returns its weights, against one with capture; time and attention memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from vea_sdk.benchmark import Row, Spread, row
from vea_sdk.capture import capture

Call = Callable[[], object]


def prefills(model: Any, inputs: Any) -> dict[str, Call]:
    """Three ways through the prompt: plain SDPA, SDPA with all layers captured, eager attention with its weights.

    Each returns what it keeps, so that this counts as memory until the caller drops it.
    """

    def run(implementation: str, **options: Any) -> Any:
        model.set_attn_implementation(implementation)
        try:
            with torch.no_grad():
                return model(**inputs, use_cache=False, logits_to_keep=1, **options)
        finally:
            model.set_attn_implementation("sdpa")

    def captured() -> Any:
        with capture(model, "all") as session:
            output = run("sdpa")
        return output, session.attention

    return {
        "plain": lambda: run("sdpa"),
        "capture": captured,
        "eager": lambda: run("eager", output_attentions=True),
    }


def peak(call: Call, device: torch.device | str = "cpu") -> int:
    """The most bytes that torch's allocator held during the call beyond what it held before."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        kept = call()
    del kept
    events = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


def eager_fits(layers: int, heads: int, tokens: int) -> bool:
    """Whether L·H·N² float32 weights and the temporaries of one layer fit into 70% of the free memory."""
    with Path("/proc/meminfo").open(encoding="utf-8") as lines:
        free = next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable"))
    return (layers + 4) * heads * tokens**2 * 4 < 0.7 * free


def rows(slower: Spread, peaks: dict[str, int], shape: Any, dtype: torch.dtype, device: str = "cpu") -> list[Row]:
    """Eager over capture: time, and peak memory beyond that of the plain pass.

    A captured pass may peak where the plain one does, and no higher: then there is no ratio, but what eager adds.
    """
    extra = {name: peaks[name] - peaks["plain"] for name in ("eager", "capture")}
    common = {"target": "P5", "better": "higher", "shape": shape, "dtype": dtype, "device": device}
    note = f"peak beyond the plain pass: eager {extra['eager']:,} bytes, capture {extra['capture']:,}"
    if extra["capture"] > 0:
        attention = row("the same: peak memory of attention", extra["eager"] / extra["capture"], "×", limit=1000.0,
                        note=note, **common)  # fmt: skip
    else:
        attention = row("the same: peak memory of eager attention, where capture peaks no higher than the plain pass",
                        extra["eager"], "bytes", note=note, **common)  # fmt: skip
    return [
        row("prefill, eager with output_attentions / SDPA with all layers captured: time", slower, "×",
            limit=5.0 if shape["prompt"] >= 4096 else None, **common),
        attention,
    ]  # fmt: skip
