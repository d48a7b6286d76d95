"""Registers, spills and shared memory of every CUDA kernel, as the compiler reports them; needs nvcc, no GPU.

python benchmarks/ptxas.py       # writes benchmarks/results/ptxas.json and ptxas.md; exit 1 if anything spills
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from vea_sdk.benchmark.rows import commit

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
ARCHS = ("80", "90")

KERNEL = re.compile(
    r"Compiling entry function '(?P<name>\w+)' for 'sm_\d+'.*?"
    r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads\n"
    r"[^\n]*Used (?P<registers>\d+) registers(?P<rest>[^\n]*)",
    re.DOTALL,
)


def main() -> None:
    version = subprocess.run(["nvcc", "--version"], capture_output=True, text=True, check=True).stdout
    release = re.findall(r"release ([\d.]+)", version)[0]
    found = [
        kernel
        for arch in ARCHS
        for source in sorted((ROOT / "csrc" / "cuda").glob("*.cu"))
        for kernel in compiled(source, arch)
    ]
    report = {"nvcc": release, "commit": commit(), "kernels": found}
    (RESULTS / "ptxas.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    (RESULTS / "ptxas.md").write_text(render(report), encoding="utf-8")
    spilling = [kernel["kernel"] for kernel in found if kernel["spilled"]]
    sys.exit(f"registers spill in {', '.join(spilling)}" if spilling else 0)


def compiled(source: Path, arch: str) -> list[dict[str, Any]]:
    """Compile one file with the flags of the build and read the report."""
    with tempfile.TemporaryDirectory() as folder:
        target = f"-gencode=arch=compute_{arch},code=sm_{arch}"
        command = ["nvcc", "-O3", "-std=c++17", "-Xptxas=-v", target, "-c", str(source), "-o", f"{folder}/kernel.o"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = parse(done.stdout + done.stderr)
    assert found, f"nvcc reports no kernel in {source.name}"
    names = subprocess.run(
        ["c++filt"], input="\n".join(kernel["kernel"] for kernel in found), capture_output=True, text=True, check=True
    ).stdout.splitlines()
    plain = [name.replace("vea::cuda::", "").replace("(anonymous namespace)::", "") for name in names]
    shown = [re.sub(r"\(.*", "", re.sub(r"^void ", "", name)) for name in plain]
    return [{"arch": f"sm_{arch}", **kernel, "kernel": name} for kernel, name in zip(found, shown, strict=True)]


def parse(report: str) -> list[dict[str, Any]]:
    """The kernels in what ``ptxas -v`` prints."""
    kernels = []
    for match in KERNEL.finditer(report):
        shared = re.search(r"(\d+) bytes smem", match["rest"])
        kernels.append(
            {
                "kernel": match["name"],
                "registers": int(match["registers"]),
                "spilled": int(match["stores"]) + int(match["loads"]),
                "stack": int(match["stack"]),
                "shared": int(shared[1]) if shared else 0,
            }
        )
    return kernels


def render(report: dict[str, Any]) -> str:
    """A table: per architecture and kernel template, the range over its instances."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for kernel in report["kernels"]:
        groups.setdefault((kernel["arch"], kernel["kernel"].split("<")[0]), []).append(kernel)
    lines = [
        "## What the CUDA kernels use",
        "",
        f"`python benchmarks/ptxas.py`: the report of `nvcc -Xptxas=-v`, nvcc {report['nvcc']}, at {report['commit']}; "
        "read off the compiler, not off a GPU. Every instance stands in `benchmarks/results/ptxas.json`.",
        "",
        "| architecture | kernel | instances | registers | bytes spilled | bytes of stack | bytes of shared memory |",
        "|---|---|---|---|---|---|---|",
    ]
    for (arch, name), kernels in groups.items():
        cells = (_range(kernels, field) for field in ("registers", "spilled", "stack", "shared"))
        lines.append(f"| {arch} | {name} | {len(kernels)} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _range(kernels: list[dict[str, Any]], field: str) -> str:
    values = [kernel[field] for kernel in kernels]
    return str(min(values)) if min(values) == max(values) else f"{min(values)} to {max(values)}"


if __name__ == "__main__":
    main()
