"""Capture: hooks choose the layer and the pass, the attention function hands over query and keys.

The package is called, too: ``vea_sdk.capture(model)`` is :func:`vea_sdk.capture.capture`.
"""

from typing import TYPE_CHECKING

from vea_sdk import callable_package
from vea_sdk.capture import session
from vea_sdk.capture.session import Session, can_stop_early, capture
from vea_sdk.capture.stats import Stats
from vea_sdk.capture.watch import StopForward

__all__ = ["Session", "Stats", "StopForward", "can_stop_early", "capture"]


class CapturePackage(callable_package.CallablePackage):
    """The class of this package."""

    __call__ = staticmethod(session.capture)
    if TYPE_CHECKING:
        from vea_sdk.capture.session import Session as Session
        from vea_sdk.capture.stats import Stats as Stats
        from vea_sdk.capture.watch import StopForward as StopForward

        can_stop_early = staticmethod(session.can_stop_early)
        capture = staticmethod(session.capture)


CapturePackage.serve(__name__)
