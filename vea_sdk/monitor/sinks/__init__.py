"""Where records go. Each sink is a file of its own, and what it needs is imported when it is made."""

from vea_sdk.monitor.sinks.base import Sink
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
