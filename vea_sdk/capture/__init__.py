"""Capture: hooks choose the layer and the pass, the attention function hands over query and keys."""

from vea_sdk.capture.session import Session, StopForward, can_stop_early, capture
from vea_sdk.capture.stats import Stats

__all__ = ["Session", "Stats", "StopForward", "can_stop_early", "capture"]
