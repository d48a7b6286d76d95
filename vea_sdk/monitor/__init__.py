"""Sampled monitoring in production.

The package is called, too: ``vea_sdk.monitor(model)`` is :func:`vea_sdk.monitor.monitor`. What else it holds is
imported at its first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from vea_sdk import callable_package
from vea_sdk.monitor import handle
from vea_sdk.monitor.handle import monitor

if TYPE_CHECKING:
    from vea_sdk.monitor import sinks
    from vea_sdk.monitor.attached import Monitor
    from vea_sdk.monitor.record import Record

__all__ = ["Monitor", "Record", "monitor", "sinks"]


class MonitorPackage(callable_package.CallablePackage):
    """The class of this package."""

    __call__ = staticmethod(handle.monitor)
    if TYPE_CHECKING:
        from vea_sdk.monitor import sinks as sinks
        from vea_sdk.monitor.attached import Monitor as Monitor
        from vea_sdk.monitor.record import Record as Record

        monitor = staticmethod(handle.monitor)


MonitorPackage.serve(__name__)

_LATER = {"Monitor": "attached", "Record": "record", "sinks": "sinks"}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f"{__name__}.{_LATER[name]}")
    return module if name == "sinks" else getattr(module, name)
