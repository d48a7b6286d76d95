"""What asking gave."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic

from typing_extensions import TypeVar

from vea_sdk.adapters.geometry import Box
from vea_sdk.capture.words import Word
from vea_sdk.errors import InvalidInputError
from vea_sdk.evidence import Evidence
from vea_sdk.pipeline import answer_dict
from vea_sdk.pipeline.candidates import Candidate, Cost
from vea_sdk.pipeline.conversation import Asked
from vea_sdk.pipeline.media import Medium
from vea_sdk.pipeline.support import Support
from vea_sdk.pipeline.ways import Mode
from vea_sdk.pipeline.words import KeptWords, NoWords, WordSource

if TYPE_CHECKING:
    from vea_sdk.pipeline.vlm import VLM

E = TypeVar("E", default="Evidence | list[Evidence]")
"""What the evidence of an answer is: one, or a list where several pictures were given."""


@dataclass(frozen=True, eq=False)
class Answer(Generic[E]):
    """What the model said at first, and after it was helped to see.

    ``text``, ``baseline``: the answer and the first one; the same where that was asked only once, or stays.
    ``evidence``: one per picture, a single one or a list where several were given; of a video a VideoEvidence; None
    where the tokens of the picture have no place on it and the mode is "none".
    ``highlighted``: likewise the pictures of the second question, None in mode "none".
    ``prompt``, ``baseline_prompt``: the texts that were sent for each of them.
    ``certainty``: exp(Σ log softmax(raw logits)[token]) over the answer's tokens, its end token included;
    ``certainty_per_token``: the same to the power of 1 / tokens; ``baseline_certainty``: of the first answer. None
    where ``generate()`` gives no logits.
    ``finished``: whether the answer came to its end, and was not cut at ``max_new_tokens``.
    ``abstained``: whether the answer is less certain than ``abstain_below``; ``text`` says what it would have been.
    ``reason``: why this answer is the one. ``candidates``: what was tried, the plain picture first; ``window``: the
    part of the picture that the answer is from, in original pixels, None where it is from the whole. ``cost``: the
    passes it took.
    ``tokens``: the answer's token ids.
    ``timings``: seconds per stage, of the whole batch where several were asked together.
    ``highlighted_images``: which pictures of the conversation ``highlighted`` shows, counted from 0.
    ``outputs``: what ``generate()`` returned for each question, where ``return_dict_in_generate`` asked for it.
    """

    text: str
    baseline: str
    evidence: E
    mode: Mode
    highlighted: Medium | list[Medium] | None = None
    timings: dict[str, float] = field(default_factory=dict)
    prompt: str = ""
    baseline_prompt: str = ""
    certainty: float | None = None
    certainty_per_token: float | None = None
    baseline_certainty: float | None = None
    finished: bool = True
    abstained: bool = False
    reason: str = ""
    candidates: tuple[Candidate, ...] = ()
    window: Box | None = None
    cost: Cost = field(default_factory=Cost)
    tokens: tuple[int, ...] = field(default=(), repr=False)
    outputs: dict[str, Any] = field(default_factory=dict, repr=False)
    highlighted_images: tuple[int, ...] = ()
    asked_by: VLM | None = field(default=None, repr=False)
    asked: Asked | None = field(default=None, repr=False)
    word_source: WordSource | KeptWords | NoWords = field(default_factory=NoWords, repr=False)
    baseline_word_source: WordSource | KeptWords | NoWords = field(default_factory=NoWords, repr=False)

    @cached_property
    def words(self) -> list[Word[E]]:
        """The words of ``text``, each with its certainty and the evidence of the row that decided it.

        Raises CaptureError where the rows of its tokens could not be had, and says why.
        """
        return self.word_source.words()

    @cached_property
    def baseline_words(self) -> list[Word[E]]:
        """The same of ``baseline``."""
        return self.words if self.baseline_word_source is self.word_source else self.baseline_word_source.words()

    def support(self, k: int = 10, seed: int = 0) -> Support:
        """Whether the evidence is used: how much less likely the answer is without its top-k patches; see
        :func:`vea_sdk.pipeline.support.support`.

        Raises InvalidInputError for an answer that was read from a file: ``vlm.support(answer, k)`` knows the model.
        """
        if self.asked_by is None:
            raise InvalidInputError("this answer does not hold its model. Use vlm.support(answer, k).")
        return self.asked_by.support(self, k, seed)

    def to_dict(self, words: bool = True) -> dict[str, Any]:
        """Everything but the pixels, as plain numbers, lists and dictionaries, ready for JSON.

        ``words``: whether to put in the words with their rows, where they can be had.
        """
        return answer_dict.to_dict(self, words)

    @classmethod
    def from_dict(cls, values: dict[str, Any], images: Sequence[Medium]) -> Answer[Any]:
        """What :meth:`to_dict` gave, with its pictures and videos, in order; the highlighted ones are made anew.

        Raises InvalidInputError for anything else, and for a number of pictures that is another.
        """
        return answer_dict.from_dict(values, images)

    def words_at(self, x: float, y: float, image: int = 0) -> list[tuple[Word[E], float]]:
        """The words with the attention that each paid to the patch at a point of a picture, the highest first.

        Args:
            x, y: in original pixels.
            image: which picture, where several were given.

        Raises:
            InvalidInputError: the point lies outside the picture, or there is no such picture.
            CaptureError: as for :attr:`words`.
        """
        rated = []
        for word in self.words:
            of_word: list[Any] = word.evidence if isinstance(word.evidence, list) else [word.evidence]
            if not 0 <= image < len(of_word) or not isinstance(of_word[image], Evidence):
                raise InvalidInputError(f"image={image} is no picture among the {len(of_word)} shown, counted from 0.")
            rated.append((word, of_word[image].score_at(x, y)))
        return sorted(rated, key=lambda pair: -pair[1])


class Clock:
    """Seconds per stage, in order."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = now - self._last
        self._last = now
