"""A measured figure that describes itself: what, limit, spread, shape, device, versions, commit, date."""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import torch

from vea_sdk.benchmark.timing import Spread

SOURCES = ("csrc", "vea_sdk", "benchmarks", "setup.py")  # what a figure depends on


@dataclass(frozen=True)
class Row:
    """One figure. ``value`` is the median; ``p20`` and ``p80`` equal it where a thing was measured once."""

    what: str
    value: float
    p20: float
    p80: float
    unit: str
    target: str | None = None  # P1 to P9
    limit: float | None = None
    better: Literal["lower", "higher"] = "lower"
    shape: Mapping[str, int | str] = field(default_factory=dict)
    dtype: str | None = None
    note: str | None = None
    reason: str | None = None  # what usually makes this figure miss its limit
    environment: Mapping[str, Any] = field(default_factory=dict)

    @property
    def met(self) -> bool | None:
        """Whether the limit holds; None where there is none."""
        if self.limit is None:
            return None
        return self.value <= self.limit if self.better == "lower" else self.value >= self.limit

    def _why_missed(self) -> str:
        assert self.limit is not None
        if self.p20 <= self.limit <= self.p80:
            return "within its noise: the 20th to the 80th percentile span the limit"
        return self.reason or "beyond its noise"

    def __str__(self) -> str:
        """One line, the limit beside the figure."""
        limit = "" if self.limit is None else f"  limit {'≤' if self.better == 'lower' else '≥'} {self.limit:g}"
        verdict = "" if self.met is None else "  held" if self.met else f"  MISSED: {self._why_missed()}"
        shape = " ".join(f"{name}={value}" for name, value in self.shape.items())
        figures = f"{self.value:.4g} {self.unit} [{self.p20:.4g}, {self.p80:.4g}]"
        return f"{self.target or '--'}  {self.what}: {figures}{limit}{verdict}  ({shape} {self.dtype or ''})"


def row(
    what: str,
    value: Spread | float,
    unit: str,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    **fields: Any,
) -> Row:
    """A row with the environment filled in; ``fields`` are those of :class:`Row`."""
    spread = value if isinstance(value, Spread) else Spread(value, value, value)
    name = None if dtype is None else str(dtype).removeprefix("torch.")
    surroundings = environment(torch.device(device))
    value, p20, p80 = (float(f"{number:.5g}") for number in (spread.p50, spread.p20, spread.p80))
    return Row(what=what, value=value, p20=p20, p80=p80, unit=unit, dtype=name, environment=surroundings, **fields)


def save(rows: Iterable[Row], path: Path) -> None:
    """Write rows as a JSON list."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([asdict(one) for one in rows], indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def load(path: Path) -> list[Row]:
    """Read what :func:`save` wrote."""
    return [Row(**fields) for fields in json.loads(path.read_text(encoding="utf-8"))]


def environment(device: torch.device) -> dict[str, Any]:
    """Device, threads, versions, commit and date."""
    found: dict[str, Any] = {
        "device": cpu_model() if device.type == "cpu" else torch.cuda.get_device_name(device),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": metadata.version("transformers"),
        "vea_sdk": metadata.version("vea-sdk"),
        "commit": commit(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
    if device.type == "cuda":
        found["cuda"] = torch.version.cuda
    return found


@cache
def cpu_model() -> str:
    """The processor's name and the widest vectors that it offers."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    named = {key.strip(): value.strip() for key, value in fields.items()}
    return f"{named.get('model name', platform.machine())}, {torch.backends.cpu.get_cpu_capability()}"


@cache
def commit() -> str:
    """The commit the package was run from, "+changes" when its sources differ from it, or "unknown"."""
    root = Path(__file__).parents[2]
    if (root / ".git").exists():
        found = _git(root, "rev-parse", "--short=10", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", *SOURCES, ":!benchmarks/results")
        if found:
            return found + ("+changes" if changed else "")
    return os.environ.get("VEA_COMMIT", "unknown")


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()
