"""Capture: hooks choose the layer and the pass, the attention function hands over query and keys."""

from vea_sdk.capture.session import Session, can_stop_early, capture
from vea_sdk.capture.stats import Stats
from vea_sdk.capture.watch import StopForward

__all__ = ["Session", "Stats", "StopForward", "can_stop_early", "capture"]
