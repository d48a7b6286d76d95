"""Timing on a GPU: device time of a call, replayed from a CUDA graph, by events."""

from __future__ import annotations

from collections.abc import Callable

import torch


def timer(call: Callable[[], object], at_least: float = 0.002) -> Callable[[], float]:
    """A measure: device seconds per call, without the host's launches: a graph of many calls, replayed between events.

    The graph is as long as takes about ``at_least`` seconds.
    """
    once = _graph(call, 1)
    once.replay()
    repeats = max(1, min(500, round(at_least / max(_elapsed(once), 1e-6))))
    many = _graph(call, repeats)
    return lambda: _elapsed(many) / repeats


def copy(n_bytes: int, device: str = "cuda") -> Callable[[], object]:
    """Move ``n_bytes`` through the device's memory: half of them read, half written."""
    source = torch.ones(n_bytes // 8, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def _graph(call: Callable[[], object], repeats: int) -> torch.cuda.CUDAGraph:
    side: torch.cuda.Stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # libraries set themselves up here, which a capture would not allow
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(repeats):
            call()
    return graph


def _elapsed(graph: torch.cuda.CUDAGraph) -> float:
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    start.record()
    graph.replay()
    stop.record()
    stop.synchronize()
    milliseconds: float = start.elapsed_time(stop)
    return 1e-3 * milliseconds
