"""Answers as dictionaries, ready for JSON, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from vea_sdk.adapters.geometry import Box
from vea_sdk.capture.words import Word
from vea_sdk.errors import CaptureError, InvalidInputError, VeaError
from vea_sdk.evidence import Evidence
from vea_sdk.evidence.files import VERSION, check_version, plain
from vea_sdk.evidence.video import VideoEvidence
from vea_sdk.evidence.videos import Video
from vea_sdk.pipeline.candidates import Candidate, Cost
from vea_sdk.pipeline.media import Found, Medium
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
_SINCE = ("abstained", "reason", "tokens")
"""What earlier versions did not write."""


def to_dict(answer: Answer[Any], words: bool) -> dict[str, Any]:
    """See :meth:`Answer.to_dict`."""
    single = isinstance(answer.evidence, Found)
    found: list[Found] = [answer.evidence] if single else answer.evidence or []
    return {
        "version": VERSION,
        **{name: plain(getattr(answer, name)) for name in _PLAIN},
        **{name: plain(getattr(answer, name)) for name in _SINCE},
        "candidates": [asdict(one) for one in answer.candidates],
        "window": plain(answer.window),
        "cost": asdict(answer.cost),
        "single": single,
        "evidence": [one.to_dict() for one in found],
        "highlighted": None if answer.highlighted is None else list(answer.highlighted_images),
        "words": _words(answer, "words") if words else None,
        "baseline_words": _words(answer, "baseline_words") if words else None,
    }


def from_dict(values: Mapping[str, Any], media: Sequence[Medium]) -> Answer[Any]:
    """See :meth:`Answer.from_dict`."""
    from vea_sdk.pipeline.answer import Answer

    check_version(values.get("version") if isinstance(values, Mapping) else None, "the dictionary")
    try:
        if len(values["evidence"]) != len(media):
            raise InvalidInputError(
                f"{len(media)} images were given for an answer about {len(values['evidence'])}. Give them in order."
            )
        found = [_found(one, medium) for one, medium in zip(values["evidence"], media, strict=True)]
        single = bool(values["single"])
        numbers = values["highlighted"]
        shown = None if numbers is None else [_highlighted(found[number], media[number]) for number in numbers]
        sources: dict[str, Any] = {
            f"{name}word_source": _kept(values[f"{name}words"], found, single) for name in ("", "baseline_")
        }
        return Answer(
            evidence=(found[0] if single else found) if found else None,
            highlighted=shown[0] if shown and single else shown,
            highlighted_images=tuple(numbers or ()),
            **{name: values[name] for name in _PLAIN},
            abstained=bool(values.get("abstained", False)),
            reason=str(values.get("reason", "")),
            tokens=tuple(int(token) for token in values.get("tokens", ())),
            candidates=tuple(_candidate(one) for one in values.get("candidates", ())),
            window=_box(values.get("window")),
            cost=Cost(**values.get("cost", {})),
            **sources,
        )
    except VeaError:
        raise
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise InvalidInputError(
            f"the dictionary holds no answer ({type(error).__name__}: {error}). Give what to_dict() returned."
        ) from error


def _candidate(values: Mapping[str, Any]) -> Candidate:
    return Candidate(**{**values, "box": _box(values["box"])})


def _box(values: Sequence[float] | None) -> Box | None:
    if values is None:
        return None
    x0, y0, x1, y1 = (float(value) for value in values)
    return x0, y0, x1, y1


def _found(values: dict[str, Any], medium: Medium) -> Found:
    if "steps" not in values:
        if isinstance(medium, Video):
            raise InvalidInputError(f"{medium} was given for a picture. Give the pictures and videos in order.")
        return Evidence.from_dict(values, medium)
    if not isinstance(medium, Video):
        raise InvalidInputError("a picture was given for a video. Give the pictures and videos in order.")
    return VideoEvidence.from_dict(values, medium.frames)


def _highlighted(found: Found, medium: Medium) -> Image.Image | Video:
    if isinstance(found, Evidence):
        return found.highlight()
    assert isinstance(medium, Video)
    return found.highlight(medium)


def _words(answer: Answer[Any], name: str) -> list[dict[str, Any]] | str:
    """The words with their rows, or why there are none."""
    try:
        words: list[Word[Any]] = getattr(answer, name)
        return [_word(word) for word in words]
    except CaptureError as error:
        return str(error)


def _word(word: Word[Any]) -> dict[str, Any]:
    found = word.evidence if isinstance(word.evidence, list) else [word.evidence]
    parts = [one for medium in found for one in _parts(medium)]
    return {
        "text": word.text,
        "span": list(word.span),
        "tokens": list(word.tokens),
        "rows": list(word.rows),
        "certainty": word.certainty,
        "layers": list(parts[0].layers),
        "layer_scores": [one.layer_scores.tolist() for one in parts],
        "stats": plain(parts[0].stats),
    }


def _parts(found: Found) -> list[Evidence]:
    """The pictures that an evidence is about: one, or every step of a video."""
    return list(found.steps) if isinstance(found, VideoEvidence) else [found]


def _kept(words: Any, found: Sequence[Found], single: bool) -> KeptWords | NoWords:
    if words is None:
        return NoWords("the answer was stored without its words")
    if isinstance(words, str):
        return NoWords(words.removesuffix(NoWords.ENDING))
    return KeptWords([_word_of(word, found, single) for word in words])


def _word_of(values: Mapping[str, Any], found: Sequence[Found], single: bool) -> Word[Any]:
    kept = [np.array(rows, np.float32) for rows in values["layer_scores"]]
    stats = {name: np.array(part, np.float32) for name, part in values["stats"].items()}
    layers = tuple(values["layers"])

    def look(_: Sequence[int]) -> Found | list[Found]:
        left, made = iter(kept), list[Found]()
        for one in found:
            parts = [
                replace(part, scores=row.mean(0), layers=layers, layer_scores=row, stats=dict(stats), head_scores=None)
                for part, row in zip(_parts(one), left, strict=False)
            ]
            made.append(replace(one, steps=tuple(parts)) if isinstance(one, VideoEvidence) else parts[0])
        return made[0] if single else made

    start, stop = values["span"]
    tokens, rows = tuple(values["tokens"]), tuple(values["rows"])
    return Word(values["text"], (start, stop), tokens, rows, values["certainty"], look)
