"""Measuring: ratios side by side, rows that describe themselves, and the calls that are compared.

``vea bench`` runs the short version on the user's machine; the scripts under ``benchmarks/`` of the repository run the
long one with the same parts.
"""

from vea_sdk.benchmark.rows import Row, load, row, save
from vea_sdk.benchmark.timing import Spread, alternate, ratios, timer

__all__ = ["Row", "Spread", "alternate", "load", "ratios", "row", "save", "timer"]
