"""The support table: what the conformance suite found about each architecture, shipped as data."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

TABLE = Path(__file__).with_name("conformance.json")
"""Written by ``python -m tests.conformance --write``, never by hand."""


@cache
def table() -> dict[str, Any]:
    """The suite's last result: {"transformers": …, "torch": …, "architectures": [row, …]}."""
    result: dict[str, Any] = json.loads(TABLE.read_text())
    return result


def verified(model_type: str) -> bool:
    """Whether capture was compared with the architecture's own eager attention and held."""
    return any(row["model_type"] == model_type and row["capture"] == "ok" for row in table()["architectures"])


def unverified(model_type: str) -> str:
    tested = table()
    return (
        f"{model_type}: generic, unverified. Its image tokens and their grid are read from the configuration and the "
        f"processor's output, and their number is checked, but this architecture is not among those tested with "
        f"Transformers {tested['transformers']}. See `vea doctor --families`."
    )
