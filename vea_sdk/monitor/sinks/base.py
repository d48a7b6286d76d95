"""What a sink is."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from vea_sdk.monitor.record import Record


@runtime_checkable
class Sink(Protocol):
    """Takes records, one call per sampled request, from the monitor's drain thread and from no other.

    What it raises is counted and never reaches the model; a sink that blocks holds up other sinks, not the model.
    A sink may also have ``begin(request)``: called when a request is sampled, on the request's own thread and in its
    context, so it has to be quick.
    """

    def write(self, record: Record) -> None: ...
    def close(self) -> None: ...
