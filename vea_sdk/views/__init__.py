"""Views of a picture: windows of it, renderings, shifts; each with its way back to the original's pixels."""

from vea_sdk.views.drawing import draw_windows
from vea_sdk.views.repairing import repairs
from vea_sdk.views.shifting import shifts
from vea_sdk.views.view import View, Views
from vea_sdk.views.windowing import around, windows

__all__ = ["View", "Views", "around", "draw_windows", "repairs", "shifts", "windows"]
