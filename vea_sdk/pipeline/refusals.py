"""Answers that decline: the picture does not tell."""

from __future__ import annotations

import re
from collections.abc import Callable

Refusals = Callable[[str], bool]
"""Whether an answer declines."""

PHRASES = (
    "no evidence",
    "not enough information",
    "insufficient information",
    "cannot be determined",
    "can't be determined",
    "cannot determine",
    "can't determine",
    "unable to determine",
    "not visible in the image",
    "not shown in the image",
    "does not contain any information",
    "unanswerable",
)


def is_refusal(text: str) -> bool:
    """Whether an answer holds one of ``PHRASES``, in lower case and without punctuation; an empty one declines, too."""
    said = re.sub(r"[^\w' ]+", " ", text.lower().replace("’", "'"))
    said = " ".join(said.split())
    return not said or any(re.search(rf"\b{phrase}\b", said) for phrase in PHRASES)
