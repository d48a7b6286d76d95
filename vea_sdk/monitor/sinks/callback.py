"""Records to a function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vea_sdk.monitor.record import Record


@dataclass(frozen=True)
class CallbackSink:
    """Calls ``function`` with each record, on the monitor's drain thread."""

    function: Callable[[Record], object]

    def write(self, record: Record) -> None:
        self.function(record)

    def close(self) -> None:
        """Nothing to release."""
