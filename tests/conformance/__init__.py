"""Does capture and geometry hold for every architecture of the installed Transformers?

Each architecture is a tiny random-weight model with its real processor (``models/``, one file per lineage). Its
captured rows are compared with its own eager attention and with float64, its layout with what a repainted region of
the picture really moves. ``python -m tests.conformance --help``.
"""

import sys
from pathlib import Path

# ``python -m`` puts the checkout first in the search path. Unless it was built in place, its package has no compiled
# part and would hide the installed one, which has: let it come last.
if sys.path[0] in ("", str(Path(__file__).parents[2])):
    sys.path.append(sys.path.pop(0))
