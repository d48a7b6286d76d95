"""The history of one model: what its statistics usually are, and which alerts are open."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vea_sdk.monitor.alerts import Alert, Kind, Switch
from vea_sdk.monitor.record import Record
from vea_sdk.monitor.rolling import Reference, Rolling
from vea_sdk.monitor.statistics import COUNTS, STATISTICS, Statistic

_LOW: dict[Kind, str] = {
    "image_ignored": "image_mass",
    "layers_disagree": "agreement",
    "unsure": "certainty_per_token",  # that of a whole answer falls with its length alone
}
_HIGH: dict[Kind, str] = {"attention_scattered": "entropy_ratio"}

_SHOWN = (0.01, 0.5, 0.99)
_CHECKS = 10  # how often drift is computed within one window


@dataclass(frozen=True)
class Limits:
    """The options of a watch; see there."""

    window: int
    recent: int
    votes: int
    tail: float
    min_history: int
    psi: float
    cooldown: float


class _Followed:
    """One statistic: the values of the last few requests, those before them, and the reference of drift."""

    def __init__(self, statistic: Statistic, limits: Limits) -> None:
        self.statistic = statistic
        self.limits = limits
        self.past = Rolling(limits.window)
        self.last: float | None = None
        self.reference: Reference | None = None
        self.psi: float | None = None
        self.drift = Switch("drift", statistic.name, recent=1, votes=1, cooldown=limits.cooldown)
        self._waiting: deque[float] = deque()
        self._since = 0  # values since the reference, or since drift was last computed

    def add(self, value: float) -> None:
        self.last = value
        self._waiting.append(value)
        if len(self._waiting) > self.limits.recent:
            self.past.add(self._waiting.popleft())
            self._since += 1

    def summary(self) -> dict[str, float | None]:
        """Quantiles of the last values, those that have not entered the past among them."""
        values = [*self.past, *self._waiting][-self.limits.window :]
        quantiles = np.quantile(values, _SHOWN).tolist() if values else [None] * len(_SHOWN)
        named = {f"p{round(100 * q)}": value for q, value in zip(_SHOWN, quantiles, strict=True)}
        return {"count": len(values), "last": self.last} | named | {"psi": self.psi}

    def drifted(self, record: Record) -> Alert | None:
        """Compare the present window with the reference, every tenth of a window."""
        window = self.limits.window
        if self.reference is None:
            if len(self.past) == window:
                self.rebase()
            return None
        if self._since < window // _CHECKS or len(self.past) < window:
            return None
        self._since = 0
        self.psi = self.reference.psi(list(self.past))
        limit = max(self.limits.psi, self.reference.noise(window))
        usual = limit if self.drift.firing is None else limit / 2
        return self.drift.vote(self.psi > usual, record, self.psi, limit)

    def rebase(self) -> None:
        """The present window is the reference of the next ones, and none of its own values is compared with it."""
        self.reference = Reference(list(self.past)) if len(self.past) == self.limits.window else None
        self._since = self.limits.window // _CHECKS - self.limits.window
        self.psi = None


class History:
    """Not locked: its watch is."""

    def __init__(self, limits: Limits, reference: Sequence[Record] = ()) -> None:
        self._limits = limits
        self._counts = {count.name: 0 for count in COUNTS}
        self._followed = {one.name: _Followed(one, limits) for one in STATISTICS}
        votes = (limits.recent, limits.votes, limits.cooldown)
        self._switches = {kind: Switch(kind, name, *votes) for kind, name in (_LOW | _HIGH).items()}
        self._nan = Switch("nan", "nan", limits.recent, 1, limits.cooldown)
        for followed in self._followed.values():
            values = [value for record in reference if (value := followed.statistic.read(record)) is not None]
            followed.reference = Reference(values) if len(values) >= limits.min_history else None

    def add(self, record: Record) -> list[Alert]:
        """The alerts that this record opens or closes."""
        for count in COUNTS:
            self._counts[count.name] += count.of(record)
        if record.dropped:
            return []
        alerts = [self._nan.vote(record.nan > 0, record, record.nan, 0)]
        alerts += [self._compare(kind, record) for kind in self._switches]
        for followed in self._followed.values():
            value = followed.statistic.read(record)
            if value is not None:
                followed.add(value)
                if followed.statistic.unit != "seconds":  # load moves those, and other tools watch them
                    alerts.append(followed.drifted(record))
        return [alert for alert in alerts if alert is not None]

    @property
    def firing(self) -> Iterable[Alert]:
        switches = (self._nan, *self._switches.values(), *(one.drift for one in self._followed.values()))
        return [switch.firing for switch in switches if switch.firing is not None]

    def rebase(self) -> None:
        for followed in self._followed.values():
            followed.rebase()

    def summary(self) -> dict[str, Any]:
        return self._counts | {"statistics": {name: one.summary() for name, one in self._followed.items()}}

    def _compare(self, kind: Kind, record: Record) -> Alert | None:
        followed = self._followed[(_LOW | _HIGH)[kind]]
        value = followed.statistic.read(record)
        if value is None or len(followed.past) < self._limits.min_history:
            return None
        limit = followed.past.quantile(1 - self._limits.tail if kind in _HIGH else self._limits.tail)
        unusual = value > limit if kind in _HIGH else value < limit
        return self._switches[kind].vote(unusual, record, value, limit)
