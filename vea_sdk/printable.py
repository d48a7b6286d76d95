"""Text from elsewhere (requests, models, answers, names of files), made fit for terminals, logs and encoders."""

from __future__ import annotations

import re

_COMMANDS = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: object) -> str:
    """``str(text)`` on one line, with escapes for what a terminal, or a reader of logs, would act on.

    These are the control characters, line ends among them; Unicode's own line ends and forced changes of direction;
    and lone surrogates, which no encoding has. Letters of all scripts stay as they are.
    """
    return _COMMANDS.sub(lambda found: ascii(found[0])[1:-1], str(text))


def encodable(text: str) -> str:
    """``text`` with escapes for lone surrogates, which names of files have and UTF-8 has not."""
    return text.encode("utf-8", "backslashreplace").decode()
