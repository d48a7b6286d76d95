"""What the monitor did so far, counted exactly from many threads."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Counters:
    """``samples`` = ``records`` + ``drops`` + ``lost`` + those still under way (none after ``close()``).

    requests: prompts seen, sampled or not. samples: those chosen. records: handed to every sink. drops: sampled while
    no place was free, or with more image tokens than a place holds. lost: not handed over before ``close()`` gave up,
    or before a drain thread died. unread: records without figures, or without the trace that there should be; each says
    why. sink_errors: writes that raised. restarts: drain threads that died and were replaced. bytes_copied: from the
    device to the host, for the records.
    """

    requests: int = 0
    samples: int = 0
    records: int = 0
    drops: int = 0
    lost: int = 0
    unread: int = 0
    sink_errors: int = 0
    restarts: int = 0
    bytes_copied: int = 0


class Tally:
    """The counters of one process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now = Counters()
        self._over = False

    def add(self, **more: int) -> None:
        with self._lock:
            if self._over:  # too late to be anything but lost
                more["lost"] = more.get("samples", 0) - more.get("drops", 0)
            self._add(more)

    def settle(self, outcome: str) -> None:
        """Count what became of a sample: "records", "drops" or "lost"; nothing, where it was given up before."""
        with self._lock:
            if not self._over:
                self._add({outcome: 1})

    def give_up(self) -> int:
        """Count what is still under way as lost, and return how many that are now."""
        with self._lock:
            self._over = True
            missing = self._now.samples - self._now.records - self._now.drops - self._now.lost
            self._add({"lost": missing})
            return missing

    def snapshot(self) -> Counters:
        return self._now

    def _add(self, more: dict[str, int]) -> None:
        self._now = replace(self._now, **{name: getattr(self._now, name) + n for name, n in more.items()})
