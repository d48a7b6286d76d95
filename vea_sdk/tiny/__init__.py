"""The embedded model: a small LLaVA that reads drawn receipts, documents and cards, and the generator of these."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from .degrade import low_contrast, mask, noise
from .fields import ABSENT, KINDS
from .pictures import Picture, compose, draw

__all__ = ["ABSENT", "KINDS", "Picture", "checkpoint", "compose", "draw", "low_contrast", "mask", "noise"]


def checkpoint() -> Path:
    """The folder of the embedded checkpoint, for ``from_pretrained``."""
    return Path(str(resources.files(__name__).joinpath("checkpoint")))
