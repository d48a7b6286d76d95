"""Many rows in batches that are halved where memory ends."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")

_NO_MEMORY = ("not enough memory", "can't allocate memory", "out of memory")
"""What torch says on devices that have no error of their own for it."""


def in_batches(rows: Sequence[T], size: int, run: Callable[[Sequence[T]], list[R]]) -> list[R]:
    """``run`` of every batch of at most ``size`` rows, one after the other.

    Where a batch does not fit into memory, it and all later ones are halved, which a warning says once; a single row
    that does not fit raises what it raised.
    """
    found: list[R] = []
    warned = False
    while len(found) < len(rows):
        batch = rows[len(found) : len(found) + size]
        try:
            found += run(batch)
            continue
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if len(batch) == 1 or not _is_memory(error):
                raise
        size = len(batch) // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if not warned:
            warnings.warn(
                f"{len(batch)} rows at a time do not fit into memory; going on with fewer. Pass a smaller batch_size.",
                stacklevel=2,
            )
            warned = True
    return found


def _is_memory(error: Exception) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return any(text in str(error).lower() for text in _NO_MEMORY)
