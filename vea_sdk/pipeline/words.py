"""The words of an answer, made when somebody asks for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from vea_sdk.capture.evidence import Rows
from vea_sdk.capture.words import Word, Words, split_words
from vea_sdk.errors import CaptureError
from vea_sdk.evidence.constants import Constants
from vea_sdk.pipeline.generation import Generated
from vea_sdk.pipeline.media import Found, Placed, evidence_of_row


@dataclass(frozen=True)
class NoWords:
    """Why the words of an answer cannot be had."""

    ENDING: ClassVar[str] = ", so no row of attention belongs to a word of this answer."

    reason: str = "this answer was made without its words"

    def words(self) -> Words[Any]:
        raise CaptureError(f"{self.reason}{self.ENDING}")


@dataclass(frozen=True, eq=False)
class WordSource:
    """All that the words of one answer are made from.

    ``rows``: what the session kept of the batch, row j decides token j; ``number``: which of the batch is meant.
    ``single``: whether a word's evidence is that of one picture, or a list.
    """

    generated: Generated
    tokenizer: Any
    rows: Rows
    number: int
    placed: Sequence[Placed]
    question: str
    constants: Constants
    single: bool

    def words(self) -> Words[Any]:
        chosen = self.generated.log_probabilities
        found = Words[Any]()
        for text, span, tokens in split_words(self.generated.tokens.tolist(), self.tokenizer):
            certainty = None if chosen is None else float(chosen[list(tokens)].sum().exp())
            found.append(Word(text, span, tokens, tokens, certainty, self._evidence))
        return found

    def _evidence(self, rows: Sequence[int]) -> Found | list[Found]:
        evidence = evidence_of_row(self.rows, self.number, self.placed, self.question, self.constants, rows)
        return evidence[0] if self.single else evidence


@dataclass(frozen=True, eq=False)
class KeptWords:
    """Words that were kept as they were."""

    kept: Sequence[Word[Any]]

    def words(self) -> Words[Any]:
        return Words(self.kept)
