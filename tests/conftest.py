"""Search path and profiles of drawn tests: `ci` draws the same cases each time, `explore` more and new ones."""

import sys
from pathlib import Path

from hypothesis import settings

# For ``tests.conformance``. Last, because the checkout's package would hide the installed one, which holds the kernels.
sys.path.append(str(Path(__file__).parents[1]))

settings.register_profile("ci", derandomize=True, deadline=None, database=None, max_examples=100)
settings.register_profile("share", settings.get_profile("ci"), max_examples=20)  # where a case costs several times more
settings.register_profile("explore", deadline=None, max_examples=2000, print_blob=True)
settings.load_profile("ci")
