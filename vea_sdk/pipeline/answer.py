"""What asking gave."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Literal

from PIL import Image

from vea_sdk.evidence import Evidence

Mode = Literal["none", "highlight"]


@dataclass(frozen=True)
class Answer:
    """What the model said, before and after it was shown its own evidence.

    ``evidence`` is one per picture: a single one, or a list when several pictures were given, and so is
    ``highlighted``, the pictures of the second question (None in mode "none"). ``timings`` are seconds per stage.
    """

    text: str
    baseline: str
    evidence: Evidence | list[Evidence]
    mode: Mode
    highlighted: Image.Image | list[Image.Image] | None = None
    timings: dict[str, float] = field(default_factory=dict)


class Clock:
    """Seconds per stage, in order."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = now - self._last
        self._last = now
