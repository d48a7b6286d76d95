"""The embedded model: a small LLaVA that reads drawn receipts, documents and cards, and the generator of these."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from ..grounding.samples import Sample
from .degrade import low_contrast, mask, noise
from .fields import ABSENT, KINDS
from .pictures import Picture, compose, draw

__all__ = [
    "ABSENT",
    "KINDS",
    "Picture",
    "checkpoint",
    "compose",
    "demo_sample",
    "draw",
    "low_contrast",
    "mask",
    "noise",
]


def checkpoint() -> Path:
    """The folder of the embedded checkpoint, for ``from_pretrained``."""
    return Path(str(resources.files(__name__).joinpath("checkpoint")))


def demo_sample() -> Sample:
    """The demo's picture and question."""
    sample = draw(20_000, "boarding")[0]
    return Sample(noise(sample.image, seed=20_000), sample.question, sample.answers, sample.boxes)
