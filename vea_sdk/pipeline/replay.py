"""Preparing the same pictures for another prompt without resizing them again."""

from __future__ import annotations

import copy
from typing import Any


class Replay:
    """An image processor that works on its first call and afterwards hands out what that call gave.

    A combined processor also lays out the image tokens of the prompt, by the sizes and counts that its image processor
    reports. Put in its place (in a copy: the user's processor stays as it is), this serves any number of prompts about
    the same pictures. Everything but the call is the real image processor's.
    """

    def __init__(self, image_processor: Any) -> None:
        self._real = image_processor
        self._first: Any = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._first is None:
            self._first = self._real(*args, **kwargs)
        # Combined processors take entries out of what they get.
        again = copy.copy(self._first)
        again.data = dict(self._first.data)
        return again

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def replaying(processor: Any) -> Any:
    """A copy of a combined processor that prepares pictures once; see :class:`Replay`."""
    twin = copy.copy(processor)
    twin.image_processor = Replay(processor.image_processor)
    return twin
