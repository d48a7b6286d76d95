"""What an alert is, and when one opens and closes."""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, dataclass
from typing import Any, Literal

from vea_sdk.monitor.record import Record

Kind = Literal["image_ignored", "attention_scattered", "layers_disagree", "unsure", "nan", "drift"]
State = Literal["firing", "resolved"]


@dataclass(frozen=True)
class Alert:
    """A change of state: ``firing`` when something became unusual, ``resolved`` when it no longer is."""

    kind: Kind
    state: State
    model: str
    statistic: str
    value: float  # of the statistic; the PSI of a drift; the number of NaN scores
    limit: float  # what it was compared with
    request: str  # the request that changed the state
    time: float  # of that request, seconds since the epoch

    def __str__(self) -> str:
        return f"{self.kind} {self.state}: {self.model}, {self.statistic} {self.value:.4g}, limit {self.limit:.4g}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


class Switch:
    """Votes of the last ``recent`` requests: opens at ``votes`` of them, closes at none, stays shut for ``cooldown``.

    Two limits instead of one keep an alert from flickering; the cooldown, in seconds of the records' own clock, keeps
    one that comes and goes from flooding. It counts from the last opening, to either side of it, because clocks are set
    back, and one record may come from a clock that is far ahead.
    """

    def __init__(self, kind: Kind, statistic: str, recent: int, votes: int, cooldown: float) -> None:
        self.kind: Kind = kind
        self.statistic = statistic
        self.firing: Alert | None = None
        self._votes = votes
        self._cooldown = cooldown
        self._last = deque[bool](maxlen=recent)
        self._opened = float("-inf")

    def vote(self, unusual: bool, record: Record, value: float, limit: float) -> Alert | None:
        """The alert that this vote opens or closes, if any."""
        self._last.append(unusual)
        count = sum(self._last)
        quiet = abs(record.time - self._opened) < self._cooldown
        if self.firing is None and unusual and count >= self._votes and not quiet:
            self._opened = record.time
            self.firing = self._alert("firing", record, value, limit)
            return self.firing
        if self.firing is not None and count == 0:
            self.firing = None
            return self._alert("resolved", record, value, limit)
        return None

    def _alert(self, state: State, record: Record, value: float, limit: float) -> Alert:
        return Alert(self.kind, state, record.model, self.statistic, value, limit, record.request, record.time)
