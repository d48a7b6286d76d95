"""One question on its way: its first answer, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vea_sdk.adapters.geometry import Box
from vea_sdk.pipeline.candidates import Candidate, Cost
from vea_sdk.pipeline.conversation import Asked
from vea_sdk.pipeline.generation import Generated
from vea_sdk.pipeline.media import Found, Medium, Placed
from vea_sdk.pipeline.words import NoWords, WordSource


@dataclass(frozen=True)
class Reply:
    """An answer of the model.

    ``prompt``: the text that was sent. ``words``: what the words are made from. ``counted``: the certainty that it is
    compared by, 0 for a refusal.
    """

    generated: Generated
    prompt: str
    words: WordSource | NoWords
    counted: float


def said(reply: Reply | None) -> tuple[str | None, float | None]:
    """Text and certainty of an answer, None for what was not asked."""
    return (None, None) if reply is None else (reply.generated.text, reply.generated.certainty)


@dataclass(frozen=True)
class First:
    """The first answer to a question.

    ``evidence``: of its pictures and videos; ``placed``: how they became tokens of the model that answers; None where
    that is not known. ``looks``: passes that the evidence took.
    """

    asked: Asked
    reply: Reply
    evidence: list[Found] | None
    placed: Sequence[Placed] | None
    looks: int


@dataclass(frozen=True)
class Outcome:
    """What is kept, and why; see :class:`vea_sdk.Answer` for the parts."""

    reply: Reply
    reason: str
    cost: Cost
    candidates: tuple[Candidate, ...] = ()
    window: Box | None = None
    highlighted: list[Medium] | None = None
