"""Does capture and geometry hold for every architecture of the installed Transformers?

Each architecture is a tiny random-weight model with its real processor (``models/``, one file per lineage). Its
captured rows are compared with its own eager attention and with float64, its layout with what a repainted region of
the picture really moves. ``python -m tests.conformance --help``.
"""

from tests.conformance.torchvision import install

install()
