"""The support table: what the conformance suite found about each architecture, shipped as data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

TABLE = Path(__file__).with_name("conformance.json")
"""Written by ``python -m tests.conformance --write``, never by hand."""


@cache
def table() -> dict[str, Any]:
    """The suite's last result: {"transformers": …, "torch": …, "architectures": [row, …]}."""
    result: dict[str, Any] = json.loads(TABLE.read_text(encoding="utf-8"))
    return result


def verified(model_type: str) -> bool:
    """Whether capture was compared with the architecture's own eager attention and held."""
    return any(row["model_type"] == model_type and row["capture"] == "ok" for row in table()["architectures"])


BATCHES_DIFFER = "batches differ"
"""Flag of architectures that answer otherwise in a padded batch than alone, by Transformers' own doing."""


def batches_differ(model_type: str) -> bool:
    """Whether the suite found that rows of a padded batch are not what each is alone."""
    rows = table()["architectures"]
    return any(row["model_type"] == model_type and BATCHES_DIFFER in row.get("flags", ()) for row in rows)


def unverified(model_type: str) -> str:
    tested = table()
    return (
        f"{model_type}: generic, unverified. Its image tokens and their grid are read from the configuration and the "
        f"processor's output, and their number is checked, but this architecture is not among those tested with "
        f"Transformers {tested['transformers']}. See `vea doctor --families`."
    )


def markdown() -> str:
    """The table as Markdown, columns aligned; ``vea doctor --families`` and docs/families.md show the same."""
    rows = [HEADINGS, *(_cells(row) for row in table()["architectures"])]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS) - 1)]
    rows.insert(1, tuple("-" * width for width in (*widths, len(HEADINGS[-1]))))
    lines = [
        " | ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]) for row in rows
    ]
    return "\n".join(f"| {line} |" for line in lines) + "\n"


HEADINGS = ("architecture", "capture", "eager", "float64", "geometry", "x", "y", "video", "ask", "notes")


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    """One row; the reasons, "left out: why", move to the notes."""
    states = {name: str(row[name]).split(": ") for name in ("capture", "geometry", "video")}
    notes = [*row.get("flags", []), *(": ".join(rest) for _, *rest in states.values() if rest)]
    return (
        row["model_type"],
        states["capture"][0],
        *(f"{row[name]:.0e}" if name in row else "" for name in ("eager_error", "float64_error")),
        states["geometry"][0],
        *(f"{row[name]:.3f}" if name in row else "" for name in ("correlation_x", "correlation_y")),
        states["video"][0].replace("-", ""),
        row["ask"].replace("-", ""),
        ", ".join(dict.fromkeys(notes)),
    )
