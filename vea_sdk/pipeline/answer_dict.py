"""Answers as dictionaries, ready for JSON, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from vea_sdk.capture.words import Word
from vea_sdk.errors import CaptureError, InvalidInputError, VeaError
from vea_sdk.evidence import Evidence
from vea_sdk.evidence.files import VERSION, check_version, plain
from vea_sdk.pipeline.words import KeptWords, NoWords

if TYPE_CHECKING:
    from vea_sdk.pipeline.answer import Answer

_PLAIN = (
    "text",
    "baseline",
    "mode",
    "prompt",
    "baseline_prompt",
    "certainty",
    "certainty_per_token",
    "baseline_certainty",
    "finished",
    "timings",
)


def to_dict(answer: Answer[Any], words: bool) -> dict[str, Any]:
    """See :meth:`Answer.to_dict`."""
    single = isinstance(answer.evidence, Evidence)
    found: list[Evidence] = [answer.evidence] if single else answer.evidence or []
    kept = {name: plain(getattr(answer, name)) for name in _PLAIN}
    return {
        "version": VERSION,
        **kept,
        "single": single,
        "evidence": [one.to_dict() for one in found],
        "highlighted": None if answer.highlighted is None else list(answer.highlighted_images),
        "words": _words(answer, "words") if words else None,
        "baseline_words": _words(answer, "baseline_words") if words else None,
    }


def from_dict(values: Mapping[str, Any], images: Sequence[Image.Image]) -> Answer[Any]:
    """See :meth:`Answer.from_dict`."""
    from vea_sdk.pipeline.answer import Answer

    check_version(values.get("version") if isinstance(values, Mapping) else None, "the dictionary")
    try:
        if len(values["evidence"]) != len(images):
            raise InvalidInputError(
                f"{len(images)} images were given for an answer about {len(values['evidence'])}. Give them in order."
            )
        found = [Evidence.from_dict(one, image) for one, image in zip(values["evidence"], images, strict=True)]
        single = bool(values["single"])
        shown = None
        if values["highlighted"] is not None:
            shown = [found[number].highlight() for number in values["highlighted"]]
        sources: dict[str, Any] = {
            f"{name}word_source": _kept(values[f"{name}words"], found, single) for name in ("", "baseline_")
        }
        return Answer(
            evidence=(found[0] if single else found) if found else None,
            highlighted=shown[0] if shown and single else shown,
            highlighted_images=tuple(values["highlighted"] or ()),
            **{name: values[name] for name in _PLAIN},
            **sources,
        )
    except VeaError:
        raise
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise InvalidInputError(
            f"the dictionary holds no answer ({type(error).__name__}: {error}). Give what to_dict() returned."
        ) from error


def _words(answer: Answer[Any], name: str) -> list[dict[str, Any]] | str:
    """The words with their rows, or why there are none."""
    try:
        words: list[Word[Any]] = getattr(answer, name)
        return [_word(word) for word in words]
    except CaptureError as error:
        return str(error)


def _word(word: Word[Any]) -> dict[str, Any]:
    found = word.evidence if isinstance(word.evidence, list) else [word.evidence]
    return {
        "text": word.text,
        "span": list(word.span),
        "tokens": list(word.tokens),
        "rows": list(word.rows),
        "certainty": word.certainty,
        "layers": list(found[0].layers),
        "layer_scores": [one.layer_scores.tolist() for one in found],
        "stats": plain(found[0].stats),
    }


def _kept(words: Any, found: Sequence[Evidence], single: bool) -> KeptWords | NoWords:
    if words is None:
        return NoWords("the answer was stored without its words")
    if isinstance(words, str):
        return NoWords(words.removesuffix(NoWords.ENDING))
    return KeptWords([_word_of(word, found, single) for word in words])


def _word_of(values: Mapping[str, Any], found: Sequence[Evidence], single: bool) -> Word[Any]:
    parts = [np.array(rows, np.float32) for rows in values["layer_scores"]]
    stats = {name: np.array(part, np.float32) for name, part in values["stats"].items()}
    layers = tuple(values["layers"])

    def look(rows: Sequence[int]) -> Evidence | list[Evidence]:
        made = [
            replace(one, scores=part.mean(0), layers=layers, layer_scores=part, stats=dict(stats), head_scores=None)
            for one, part in zip(found, parts, strict=True)
        ]
        return made[0] if single else made

    start, stop = values["span"]
    tokens, rows = tuple(values["tokens"]), tuple(values["rows"])
    return Word(values["text"], (start, stop), tokens, rows, values["certainty"], look)
