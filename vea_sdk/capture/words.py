"""The words of an answer, and which tokens, and so which rows, each is made of."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, SupportsIndex, overload

import torch
from typing_extensions import TypeVar

from vea_sdk.capture.evidence import sequence_number
from vea_sdk.errors import CaptureError, InvalidInputError, WordIndexError

if TYPE_CHECKING:
    from vea_sdk.capture.session import Session
    from vea_sdk.evidence import Evidence

# Scripts that are written without spaces between words; these are the first words of their characters' names.
_UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "HALFWIDTH KATAKANA", "IDEOGRAPHIC", "THAI")


class Piece(NamedTuple):
    """A word of a decoded text: ``span`` (start, stop) in the stripped text, ``tokens`` by number."""

    text: str
    span: tuple[int, int]
    tokens: tuple[int, ...]


E = TypeVar("E", default="Evidence | list[Evidence]")
"""What the evidence of a word is: one, or a list where several pictures were given."""


@dataclass(frozen=True, eq=False)
class Word(Generic[E]):
    """A word of an answer.

    ``text``, ``span``: the word, and where it stands in the answer's text, (start, stop).
    ``tokens``: the numbers of its tokens in the answer; ``rows``: of the rows of attention that decided them.
    ``certainty``: the product of its tokens' probabilities, exp(Σ log softmax(raw logits)[token]); None where there are
    no logits.
    """

    text: str
    span: tuple[int, int]
    tokens: tuple[int, ...]
    rows: tuple[int, ...]
    certainty: float | None
    look: Callable[[Sequence[int]], E] = field(repr=False)

    @cached_property
    def evidence(self) -> E:
        """Where the model looked for this word: the mean of its rows, made when asked for; a list of several pictures.

        Raises CaptureError where that cannot be had, and says why.
        """
        return self.look(self.rows)


class Words(list[Word[E]]):
    """The words of an answer: a list that says how many there are where one is asked for that is not."""

    @overload
    def __getitem__(self, index: SupportsIndex) -> Word[E]: ...
    @overload
    def __getitem__(self, index: slice) -> list[Word[E]]: ...
    def __getitem__(self, index: SupportsIndex | slice) -> Word[E] | list[Word[E]]:
        try:
            return super().__getitem__(index)
        except IndexError as error:
            has = f"has {len(self)} words, 0 to {len(self) - 1}" if self else "has no words"
            raise WordIndexError(f"there is no word {index}: the answer {has}.") from error


def split_words(ids: Sequence[int], tokenizer: Any) -> list[Piece]:
    """The words of a decoded answer and their tokens.

    Token j covers what decode(ids[:j + 1]) adds to decode(ids[:j]); a character that several tokens make belongs to
    the one that completes it. A word is a maximal run of characters that are no space; in Han, Kana and Thai, what one
    token completes. A token belongs to the word that holds its first such character, special tokens to none.

    Args:
        ids: of the answer alone.
        tokenizer: the model's.
    """
    owners, text = _owners(ids, tokenizer)
    before = len(text) - len(text.lstrip())
    first: dict[int, int] = {}  # token -> its first character that is no space
    for place, owner in enumerate(owners):
        if not text[place].isspace():
            first.setdefault(owner, place)
    words = []
    for start, stop in _runs(text, owners):
        tokens = tuple(sorted(token for token, place in first.items() if start <= place < stop))
        # A token that spans two words belongs to the first; the second is decided by the same row.
        words.append(Piece(text[start:stop], (start - before, stop - before), tokens or (owners[start],)))
    return words


def _owners(ids: Sequence[int], tokenizer: Any) -> tuple[list[int], str]:
    """For every character of the decoded text, the token that completes it; and the text."""
    text = str(tokenizer.decode(list(ids), skip_special_tokens=True))
    owners: list[int] = []
    for number in range(len(ids)):
        prefix = (
            text if number == len(ids) - 1 else str(tokenizer.decode(list(ids[: number + 1]), skip_special_tokens=True))
        )
        end = len(owners)
        # What stands at the end of a prefix may change when more comes: half a character, a space before a mark.
        while end < min(len(prefix), len(text)) and prefix[end] == text[end]:
            end += 1
        owners += [number] * (end - len(owners))
    return owners, text


def _runs(text: str, owners: Sequence[int]) -> list[tuple[int, int]]:
    """(start, stop) of every word."""
    runs: list[tuple[int, int]] = []
    open_run = False
    for place, character in enumerate(text):
        if character.isspace():
            open_run = False
            continue
        unspaced = _is_unspaced(character)
        joins = open_run and (
            owners[place] == owners[place - 1]
            if unspaced and _is_unspaced(text[place - 1])
            else unspaced == _is_unspaced(text[place - 1]) or unicodedata.combining(character) > 0
        )
        if joins:
            runs[-1] = (runs[-1][0], place + 1)
        else:
            runs.append((place, place + 1))
        open_run = True
    return runs


def _is_unspaced(character: str) -> bool:
    return unicodedata.name(character, "").startswith(_UNSPACED)


def of_session(session: Session, ids: Any, tokenizer: Any, row: int, images: Any, processor: Any) -> Words[Any]:
    """See :meth:`Session.words`."""
    if session.queries == "last":
        raise CaptureError(
            'the session kept the row of the first token only, so the others have none. Open it with queries="all".'
        )
    prompt = session.prompt
    if prompt.beams > 1:
        raise CaptureError(
            f"beam search changed between {prompt.beams} sequences while it generated, so the rows are not those of "
            "the sequence it returned. Generate greedily or by sampling."
        )
    decoder = getattr(tokenizer, "tokenizer", tokenizer)
    if not hasattr(decoder, "decode"):
        raise InvalidInputError(
            f"tokenizer={type(tokenizer).__name__} cannot decode tokens. Give the model's tokenizer, or a processor "
            "that holds one."
        )
    row = sequence_number(row, session.attention.shape[1])
    tokens = _answer_ids(ids, row, session)
    skipped = 1 if session.queries == "generated" else 0
    count = session.attention.shape[2]

    def look(rows: Sequence[int]) -> Evidence | list[Evidence]:
        if images is None or processor is None:
            raise CaptureError(
                "the session does not know the pictures. Give images= and processor= to session.words(), or call "
                "session.evidence(images, processor, query=word.rows)."
            )
        if not rows:
            raise CaptureError(
                'the first token was decided by the prompt, whose row queries="generated" does not keep. Use '
                'queries="all".'
            )
        return session.evidence(images, processor, list(rows), row)

    words = Words[Any]()
    for text, span, numbers in split_words(tokens, decoder):
        rows = tuple(number - skipped for number in numbers if number >= skipped)
        if rows and rows[-1] >= count:
            raise InvalidInputError(
                f"the word {text!r} was decided in row {rows[-1]}, but the session has {count}. Give the ids that "
                "generate() returned inside it."
            )
        words.append(Word(text, span, numbers, rows, None, look))
    return words


def _answer_ids(ids: Any, row: int, session: Session) -> list[int]:
    """The tokens of one answer, without its prompt."""
    given = torch.as_tensor(ids)
    if given.dim() not in (1, 2) or given.is_floating_point():
        raise InvalidInputError(
            f"ids must be whole numbers [batch, tokens] or [tokens]; got shape {tuple(given.shape)}."
        )
    batch = session.attention.shape[1]
    if given.dim() == 2 and len(given) not in (1, batch):
        raise InvalidInputError(
            f"ids of shape {tuple(given.shape)} are not those of the session, which has {batch} sequences."
        )
    answer: list[int] = (given[row if len(given) > 1 else 0] if given.dim() == 2 else given).tolist()
    fed = session.prompt.inputs.get("input_ids")
    if isinstance(fed, torch.Tensor):
        prompt = fed[row * len(fed) // batch].tolist()
        if answer[: len(prompt)] == prompt:
            return answer[len(prompt) :]
    config = session.prompt.adapter.config
    if getattr(config, "is_encoder_decoder", False):
        return answer[1:]  # the token that its decoder starts with
    return answer
