"""What the scripts share: progress on stderr, results into a folder, a summary on stdout."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress

from vea_sdk.benchmark import Row, save

RESULTS = Path(__file__).with_name("results")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the rows (default: %(default)s)")


@contextmanager
def progress(steps: int) -> Iterator[Callable[[], None]]:
    """A bar on stderr, on a terminal; yields what advances it."""
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("measuring", total=steps)
        yield lambda: bar.advance(task)


def seconds(call: Callable[[], object], device: torch.device | str = "cpu") -> float:
    """Seconds of one call, its device's work included."""
    cuda = torch.device(device).type == "cuda"
    if cuda:
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    call()
    if cuda:
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def finish(rows: Sequence[Row], name: str, options: argparse.Namespace) -> None:
    """Write the rows as ``<out>/<name>.json`` and show them; on stderr when stdout holds JSON."""
    save(rows, options.out / f"{name}.json")
    for one in rows:
        print(one, file=sys.stderr if options.json else sys.stdout)
