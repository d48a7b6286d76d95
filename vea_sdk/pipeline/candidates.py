"""What was tried for an answer, and which of it is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vea_sdk.adapters.geometry import Box


@dataclass(frozen=True)
class Candidate:
    """A view of the picture that was looked at, and answered where it was worth it.

    ``view``: its name; ``box``: the part of the picture that it shows, in original pixels; ``image``: of which picture
    of the question, counted from 0. ``image_mass``: share of the attention on it before answering, mean over the
    layers; None where it was not looked at. ``text``, ``certainty``: of its answer, None where it was not asked.
    ``chosen``: whether that is the answer.
    """

    view: str
    box: Box
    image: int = 0
    image_mass: float | None = None
    text: str | None = None
    certainty: float | None = None
    chosen: bool = False


@dataclass(frozen=True)
class Cost:
    """Passes of the model for one answer.

    ``looks``: prompts that were run up to the deepest layer that is read, by the model that looks. ``answers``: answers
    that were generated, the first one included; in an ensemble one for every view.
    """

    looks: int = 0
    answers: int = 1


@dataclass(frozen=True)
class Gate:
    """When another answer replaces the first: it is no refusal, surer than the first, and its certainty is above
    ``min_certainty`` where that is given. A refusal's certainty counts as 0, the first one's too."""

    min_certainty: float | None

    def surest(self, first: float, others: Sequence[float]) -> int | None:
        """Which of the others replaces the first; the earlier of equal ones; None where the first stays."""
        if not others:
            return None
        best = max(range(len(others)), key=lambda number: others[number])
        return best if self.passes(first, others[best]) else None

    def passes(self, first: float, other: float) -> bool:
        """Whether an answer of this certainty replaces the first."""
        return other > first and other > (0.0 if self.min_certainty is None else self.min_certainty)

    def __str__(self) -> str:
        return "" if self.min_certainty is None else f" and above the gate of {self.min_certainty:g}"
