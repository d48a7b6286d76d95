"""Profiles of drawn tests: `ci` draws the same cases each time, `--hypothesis-profile=explore` more and new ones."""

from hypothesis import settings

settings.register_profile("ci", derandomize=True, deadline=None, database=None, max_examples=100)
settings.register_profile("share", settings.get_profile("ci"), max_examples=20)  # where a case costs several times more
settings.register_profile("explore", deadline=None, max_examples=2000, print_blob=True)
settings.load_profile("ci")
