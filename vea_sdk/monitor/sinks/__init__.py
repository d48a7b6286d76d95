"""Where records go. Each sink is a file of its own, and what it needs is imported when it is made."""

from vea_sdk.monitor.sinks.base import Sink

__all__ = ["Sink"]
