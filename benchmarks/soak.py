"""Many requests from many threads under a monitor: what grows, what is left, and whether the counters add up."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import vea_sdk as vea
from vea_sdk.monitor.counters import Counters


class Counting:
    """A sink that counts."""

    def __init__(self) -> None:
        self.records = self.dropped = 0

    def write(self, record: Any) -> None:
        self.records += not record.dropped
        self.dropped += record.dropped

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class Soaked:
    """``growth``: bytes of resident memory from the end of the warm-up to that of the last request. ``threads`` and
    ``hooks``: how many more there are after ``close()`` than before."""

    requests: int
    growth: int
    threads: int
    hooks: int
    written: int
    counters: Counters


def soak(model: Any, inputs: Any, requests: int, threads: int = 8, tick: Callable[[], None] = lambda: None) -> Soaked:
    """One pass per request, every one sampled. The first thousand, or half of them, warm up: the allocator of each
    thread fills its pools, with a monitor and without."""
    sink, expected = Counting(), _logits(model, inputs)
    before = _hooks(model)
    handle = vea.monitor(model, sample_rate=1.0, layers="all", sinks=[sink])

    def request(number: int) -> None:
        with handle.request(str(number)):
            if not torch.equal(_logits(model, inputs), expected):
                raise AssertionError(f"request {number} was answered differently")
        tick()

    def share(numbers: range) -> None:
        for number in numbers:
            request(number)

    def run(first: int, stop: int) -> int:
        # One task for each thread: a task for each request would itself take a kilobyte each.
        list(pool.map(share, [range(first + i, stop, threads) for i in range(threads)]))
        handle.flush(60)
        return _resident()

    with ThreadPoolExecutor(threads) as pool:
        warm = min(1000, requests // 2)
        started = run(0, warm)
        growth = run(warm, requests) - started
    handle.close(60)
    left = [thread for thread in threading.enumerate() if thread.name == "vea-monitor"]
    return Soaked(requests, growth, len(left), _hooks(model) - before, sink.records, handle.counters)


def _logits(model: Any, inputs: Any) -> Any:
    with torch.no_grad():
        return model(**inputs).logits


def _hooks(model: Any) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def _resident() -> int:
    """Bytes of this process in memory."""
    gc.collect()
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) << 10
