"""What happens to open monitors when the interpreter ends, and when the process forks."""

from __future__ import annotations

import atexit
import logging
import os
import weakref
from typing import Any

log = logging.getLogger("vea_sdk.monitor")

_open: weakref.WeakSet[Any] = weakref.WeakSet()
_registered = False


def add(monitor: Any) -> None:
    """Close it within two seconds of the interpreter's end, and give it a thread of its own in a forked child."""
    global _registered
    if not _registered:
        _registered = True
        atexit.register(_close_all)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=_after_fork)
    _open.add(monitor)


def remove(monitor: Any) -> None:
    _open.discard(monitor)


def _close_all() -> None:
    for monitor in list(_open):
        monitor.close(timeout=2.0 / max(len(_open), 1))


def _after_fork() -> None:
    for monitor in list(_open):
        monitor.after_fork()
