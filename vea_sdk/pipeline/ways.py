"""The ways of asking and their options, checked before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, Literal, get_args

from vea_sdk.errors import InvalidInputError
from vea_sdk.pipeline.candidates import Gate
from vea_sdk.pipeline.refusals import Refusals, is_refusal
from vea_sdk.views import Views, repairs, shifts

Mode = Literal["none", "highlight", "closer", "views", "ensemble"]
Show = Literal["window", "both"]
RankBy = Literal["image_mass", "random", "centre", "peak"]
ChooseBy = Literal["image_mass", "certainty"]
MinCertainty = float | Literal["profiled"] | None

OF_MODE: Final[Mapping[str, frozenset[str]]] = {
    "none": frozenset({"abstain_below", "refusals"}),
    "highlight": frozenset({"abstain_below", "refusals"}),
    "closer": frozenset(
        {"abstain_below", "refusals", "min_certainty", "looks", "answers", "show", "stop_at", "rank_by", "anyway"}
    ),
    "views": frozenset({"abstain_below", "refusals", "min_certainty", "views", "choose_by"}),
    "ensemble": frozenset({"abstain_below", "refusals", "views"}),
}
"""Which options say something in which mode; ``batch_size`` does in all."""


@dataclass(frozen=True)
class Way:
    """How a question is asked; see :meth:`vea_sdk.pipeline.VLM.ask` for the options."""

    mode: Mode
    looks: int = 74
    answers: int = 3
    show: Show = "window"
    min_certainty: MinCertainty = "profiled"
    abstain_below: float | None = None
    refusals: Refusals = is_refusal
    stop_at: float | None = None
    views: Views | None = None
    choose_by: ChooseBy = "image_mass"
    rank_by: RankBy = "image_mass"
    anyway: bool = False
    batch_size: int = 16

    @classmethod
    def of(cls, mode: str, given: Mapping[str, Any]) -> Way:
        """From a mode and the options that were given.

        Raises InvalidInputError for a mode that is none, an option that says nothing in it, or a value that cannot be.
        """
        if mode not in get_args(Mode):
            raise InvalidInputError(f"mode={mode!r} is unknown. Choose among {_listed(get_args(Mode))}.")
        for name, value in given.items():
            if name != "batch_size" and name not in OF_MODE[mode]:
                modes = [other for other, names in OF_MODE.items() if name in names]
                raise InvalidInputError(f"{name}={value!r} says nothing in mode {mode!r}: it is for {_listed(modes)}.")
        return cls(mode, **given)._checked()  # type: ignore[arg-type]

    def _checked(self) -> Way:
        for name in ("looks", "answers", "batch_size"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InvalidInputError(f"{name}={value!r} must be a whole number of at least 1.")
        if self.rank_by == "image_mass" and self.answers > self.looks:
            raise InvalidInputError(
                f"answers={self.answers} is more than looks={self.looks}: only what was looked at is answered."
            )
        for name in ("min_certainty", "abstain_below", "stop_at"):
            value = getattr(self, name)
            if value is None or (name == "min_certainty" and value == "profiled"):
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
                raise InvalidInputError(f"{name}={value!r} is no certainty: give a number from 0 to 1, or None.")
        for name, kind in (("show", Show), ("rank_by", RankBy), ("choose_by", ChooseBy)):
            if getattr(self, name) not in get_args(kind):
                raise InvalidInputError(
                    f"{name}={getattr(self, name)!r} is unknown. Choose among {_listed(get_args(kind))}."
                )
        for name in ("refusals", "views"):
            if getattr(self, name) is not None and not callable(getattr(self, name)):
                raise InvalidInputError(f"{name}={getattr(self, name)!r} is no function.")
        return self

    @property
    def needs_certainty(self) -> str | None:
        """What needs the certainty of answers, and so the logits of ``generate()``; None where nothing does."""
        if self.abstain_below is not None:
            return f"abstain_below={self.abstain_below}"
        if self.mode == "closer":
            return 'mode="closer", which keeps the surest answer,'
        if self.mode == "views" and (self.choose_by == "certainty" or isinstance(self.min_certainty, float | int)):
            return 'mode="views" with choose_by="certainty" or min_certainty='
        return None

    @property
    def renderings(self) -> Views:
        """The views of modes "views" and "ensemble"."""
        return self.views or (shifts() if self.mode == "ensemble" else repairs())

    def gate(self, profiled: float | None) -> Gate:
        """What another answer must pass. ``profiled``: the threshold in the model's profile."""
        return Gate(profiled if self.min_certainty == "profiled" else self.min_certainty)

    def counted(self, text: str, certainty: float | None) -> float:
        """The certainty that an answer is compared by: a refusal's is 0."""
        return 0.0 if certainty is None or self.refusals(text) else certainty


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """Of a call's arguments, those that say how to ask and were given: None is a value of ``min_certainty`` alone."""
    names = {field.name for field in fields(Way)} - {"mode"}
    return {
        name: value
        for name, value in options.items()
        if name in names and (value != "profiled" if name == "min_certainty" else value is not None)
    }


def _listed(names: Any) -> str:
    return ", ".join(f'"{name}"' for name in names)
