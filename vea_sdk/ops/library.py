"""The torch library the operators live in: one object, held for the life of the process."""

from __future__ import annotations

from typing import Any

from torch.library import Library

LIBRARY: Any = Library("vea_sdk", "DEF")  # type: ignore[no-untyped-call]  # its methods carry no types either
