"""How well an answer matches the accepted ones."""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence

from vea_sdk.errors import InvalidInputError

_ARTICLE = re.compile(r"\b(?:a|an|the)\b")
_COUNTED = "zero one two three four five six seven eight nine ten"
_NUMBERS = {"none": "0"} | {word: str(n) for n, word in enumerate(_COUNTED.split())}
_CONTRACTED = """
    ain't aren't can't couldn't didn't doesn't don't hadn't hasn't haven't isn't mightn't mustn't needn't shouldn't
    wasn't weren't won't wouldn't could've should've would've might've they've we've you've i've i'm he's she's that's
    there's what's where's who's let's they're you're they'll you'll that'll y'all o'clock
"""
_CONTRACTIONS = {word.replace("'", ""): word for word in _CONTRACTED.split()}


def exact_match(prediction: str, answers: str | Sequence[str]) -> float:
    """1.0 if the prediction equals one of the answers, else 0.0.

    Compared in lower case, without punctuation and articles (a, an, the), with single spaces.

    Raises InvalidInputError when there is no answer to compare with.
    """
    said = _words(prediction)
    return float(any(said == _words(answer) for answer in _answers(answers)))


def token_f1(prediction: str, answers: str | Sequence[str]) -> float:
    """2PR / (P + R) over the words that prediction and answer share, best over the answers.

    Words as in :func:`exact_match`; a word counts as often as both have it. Two empty texts give 1.
    """
    said = _words(prediction)
    return max(_f1(said, _words(answer)) for answer in _answers(answers))


def anls(prediction: str, answers: str | Sequence[str], threshold: float = 0.5) -> float:
    """Normalised Levenshtein similarity, best over the answers (ANLS of one question, arXiv 1907.00490).

    NL = edit distance / length of the longer text; 1 − NL where NL < ``threshold``, else 0. Texts are compared in lower
    case with single spaces; punctuation and articles count. Two empty texts give 1. The mean over questions is ANLS.

    Raises InvalidInputError when there is no answer to compare with, or the threshold leaves [0, 1].
    """
    if not 0 <= threshold <= 1:
        raise InvalidInputError(f"threshold={threshold} must lie in [0, 1]; 0.5 is the published value.")
    said = " ".join(prediction.lower().split())
    accepted = [" ".join(answer.lower().split()) for answer in _answers(answers)]
    distances = [edit_distance(said, answer) / max(len(said), len(answer), 1) for answer in accepted]
    return max(1 - distance if distance < threshold else 0.0 for distance in distances)


def vqa_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """Mean over the answers i of min(1, matches among the others / 3) (arXiv 1505.00468, visualqa.org/evaluation).

    Every answer is one person's, repetitions included; the measure was made for ten. Below four, not even agreement of
    all gives 1. Compared in lower case, with number words as digits, contractions with their apostrophe, without
    articles; periods go unless a digit follows, commas go between digits, other punctuation but ' and : turns into a
    space.

    Raises InvalidInputError for fewer than two answers: nothing is left when one is left out.
    """
    if isinstance(answers, str) or len(answers) < 2:
        raise InvalidInputError(
            f"answers={answers!r}: VQA accuracy leaves one person's answer out and needs at least two, ten by design. "
            "Use exact_match for a single one."
        )
    said = _vqa_text(prediction)
    matches = [said == _vqa_text(answer) for answer in answers]
    return sum(min(1.0, (sum(matches) - own) / 3) for own in matches) / len(matches)


def edit_distance(first: str, second: str) -> int:
    """Levenshtein distance: the fewest insertions, deletions and substitutions of characters."""
    row = list(range(len(second) + 1))
    for i, char in enumerate(first, 1):
        above, row[0] = row[0], i
        for j, other in enumerate(second, 1):
            above, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, above + (char != other))
    return row[-1]


def _answers(answers: str | Sequence[str]) -> list[str]:
    listed = [answers] if isinstance(answers, str) else list(answers)
    if not listed:
        raise InvalidInputError("answers is empty: pass at least one accepted answer.")
    return listed


def _words(text: str) -> list[str]:
    lowered = "".join(
        char for char in text.lower() if char not in string.punctuation and unicodedata.category(char)[0] != "P"
    )
    return _ARTICLE.sub(" ", lowered).split() or lowered.split()  # "A" alone is an answer, no article


def _f1(said: list[str], accepted: list[str]) -> float:
    if not said or not accepted:
        return float(said == accepted)
    shared = (Counter(said) & Counter(accepted)).total()
    return 2 * shared / (len(said) + len(accepted))


def _vqa_text(text: str) -> str:
    text = re.sub(r"(?<=\d),(?=\d)|\.(?!\d)", "", text.lower())
    words = re.sub(r"[^\w\s':.]|_", " ", text).split()
    words = [_CONTRACTIONS.get(word, _NUMBERS.get(word, word)) for word in words]
    return " ".join(word for word in words if not _ARTICLE.fullmatch(word)) or " ".join(words)
