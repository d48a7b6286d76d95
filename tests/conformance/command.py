"""python -m tests.conformance [MODEL_TYPE ...] [--json] [--jobs N] [--verbose] [--write | --at-least N M]"""

from __future__ import annotations

import argparse
import json
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import torch
import transformers

from tests.conformance import suite, workers
from tests.conformance.document import DOCUMENT, document
from vea_sdk.adapters import support

CHECKS = ("capture", "geometry", "video", "ask")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=suite.__doc__)
    parser.add_argument("model_type", nargs="*", help="the architectures to check, default all")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--jobs", type=int, default=1, help="processes, one core each")
    parser.add_argument("--verbose", action="store_true", help="tracebacks on stderr")
    parser.add_argument(
        "--write", action="store_true", help="renew the support table that the package ships, and its page"
    )
    parser.add_argument(
        "--at-least",
        nargs=2,
        type=int,
        metavar=("CAPTURED", "GEOMETRY"),
        help="succeed with so many although some of the suite's models do not run, as in an older Transformers",
    )
    arguments = parser.parse_args()
    if arguments.write and arguments.model_type:
        parser.error("--write renews the whole table: name no architecture")
    names = arguments.model_type or list(suite.architectures())
    rows: list[dict[str, Any]] = []
    for row in results(names, arguments.jobs, arguments.verbose):
        rows.append(row)
        print(line(row), file=sys.stderr, flush=True)
    summary = {
        "transformers": transformers.__version__,
        "torch": torch.__version__,
        "captured": sum(row["capture"] == "ok" for row in rows),
        "geometry": sum(row["geometry"] == "ok" for row in rows),
        "video": sum(row["video"] == "ok" for row in rows),
        "ask": sum(row["ask"] not in ("-", "refuses") and not row["ask"].startswith("FAILED") for row in rows),
        "architectures": rows,
    }
    found = f"{summary['captured']} captured, {summary['geometry']} with geometry, {summary['video']} of video"
    found += f", {summary['ask']} asked"
    print(f"{found}, of {len(rows)}", file=sys.stderr)
    if arguments.write:
        support.TABLE.write_text(json.dumps(without_times(summary), indent=1) + "\n")
        support.table.cache_clear()
        DOCUMENT.write_text(document())
    if arguments.json:
        print(json.dumps(summary, indent=1))
    if arguments.at_least:
        captured, geometry = arguments.at_least
        return int(summary["captured"] < captured or summary["geometry"] < geometry or any(map(wrong, rows)))
    return int(any(row[check].startswith("FAILED") for row in rows for check in CHECKS))


def wrong(row: dict[str, Any]) -> bool:
    """Whether a comparison failed: a finding about the package. Other errors are those of a model or processor."""
    return any(str(row[check]).startswith("FAILED ") and "Error: " not in row[check] for check in CHECKS)


def without_times(summary: dict[str, Any]) -> dict[str, Any]:
    """The same on every machine, as far as rounding allows."""
    rows = [{key: value for key, value in row.items() if key != "seconds"} for row in summary["architectures"]]
    return summary | {"architectures": rows}


def results(names: list[str], jobs: int, verbose: bool) -> Any:
    if jobs == 1:
        workers.start()
        yield from (suite.run(name, verbose) for name in names)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=workers.start) as pool:
        yield from pool.map(suite.run, names, [verbose] * len(names))


def line(row: dict[str, Any]) -> str:
    figures = [f"{row[name]:.0e}" for name in ("eager_error", "float64_error") if name in row]
    places = [str(row[name]) for name in ("correlation_x", "correlation_y", "bias") if name in row]
    flags = ", ".join(row.get("flags", []))
    return (
        f"{row['model_type']:24} capture {row['capture']} {'/'.join(figures)}  geometry {row['geometry']} "
        f"{'/'.join(places)}  video {row['video']}  ask {row['ask']}  [{flags}] {row.get('seconds', 0)} s"
    )
