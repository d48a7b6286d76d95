"""Where records go. Each sink is a file of its own, imported at its first use; what it needs, when it is made."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from vea_sdk.monitor.sinks.base import Sink

if TYPE_CHECKING:
    from vea_sdk.monitor.sinks.callback import CallbackSink
    from vea_sdk.monitor.sinks.jsonl import JsonLinesSink
    from vea_sdk.monitor.sinks.log import LoggingSink
    from vea_sdk.monitor.sinks.otel import OpenTelemetrySink
    from vea_sdk.monitor.sinks.prometheus import MonitorCollector, PrometheusSink

__all__ = [
    "CallbackSink",
    "JsonLinesSink",
    "LoggingSink",
    "MonitorCollector",
    "OpenTelemetrySink",
    "PrometheusSink",
    "Sink",
]

_LATER = {
    "CallbackSink": "callback",
    "JsonLinesSink": "jsonl",
    "LoggingSink": "log",
    "MonitorCollector": "prometheus",
    "OpenTelemetrySink": "otel",
    "PrometheusSink": "prometheus",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
