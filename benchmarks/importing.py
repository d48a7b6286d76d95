"""P9: what ``import vea_sdk`` costs beyond ``import torch``.

python benchmarks/importing.py
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

import reports

from vea_sdk.benchmark import Spread, row

CODE = "import time, torch; started = time.perf_counter(); import vea_sdk; print(time.perf_counter() - started)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    reports.add_arguments(parser)
    options = parser.parse_args()
    taken = [milliseconds() for _ in range(options.rounds + 1)][1:]  # the first one writes bytecode
    reports.finish(
        [row("import vea_sdk after import torch", Spread.of(taken), "ms", target="P9", limit=50.0)],
        "importing",
        options,
    )


def milliseconds() -> float:
    """Wall clock of the import in a fresh interpreter."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=True)
    return 1e3 * float(done.stdout)


if __name__ == "__main__":
    main()
