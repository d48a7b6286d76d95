"""Where a model looked in a video: in each step of time, and when."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from vea_sdk.errors import GeometryError, InvalidInputError
from vea_sdk.evidence.highlighting import highlight
from vea_sdk.evidence.maps import density
from vea_sdk.evidence.normalizing import normalize
from vea_sdk.evidence.overlaying import OPACITY, check_opacity, overlay
from vea_sdk.evidence.result import Evidence
from vea_sdk.evidence.videos import Video

_CELL = 320
"""The longer side of a frame on the contact sheet, in pixels, at most."""

_BAR = (230, 81, 0)


@dataclass(frozen=True, eq=False, repr=False)
class VideoEvidence(Sequence[Evidence]):
    """One Evidence per step of time, each on the step's first frame; a sequence of them.

    ``steps``: of each step, its own scores and layout. ``seconds``: when its first frame was. ``shown``: which frames
    of the video, by number, share its tokens.

    What the model looked at *when* is the share of a step, Σ e over its tokens that show pixels / the same over all
    steps; see :attr:`frames`. Maps of the steps are normalised together, so a step that was hardly looked at stays
    dark; ``evidence[i].overlay()`` alone shows where in this step, whatever its share.

    Raises GeometryError where steps, times and frames are not as many.
    """

    steps: tuple[Evidence, ...]
    seconds: tuple[float, ...]
    shown: tuple[tuple[int, ...], ...]
    _maps: dict[str, NDArray[np.float32]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        for name in ("steps", "seconds", "shown"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not self.steps or not len(self.steps) == len(self.seconds) == len(self.shown):
            raise GeometryError(
                f"{len(self.steps)} steps, {len(self.seconds)} times and {len(self.shown)} groups of frames: give one "
                "of each to every step, at least one."
            )

    def __len__(self) -> int:
        return len(self.steps)

    @overload
    def __getitem__(self, index: int) -> Evidence: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Evidence, ...]: ...
    def __getitem__(self, index: int | slice) -> Evidence | tuple[Evidence, ...]:
        return self.steps[index]

    def __iter__(self) -> Iterator[Evidence]:
        return iter(self.steps)

    def __repr__(self) -> str:
        rows, cols = self.steps[0].grid
        question = "" if self.question is None else f" of {self.question!r}"
        when = f"{self.seconds[0]:g} to {self.seconds[-1]:g} s"
        return (
            f"VideoEvidence({len(self)} steps of {rows}x{cols} patches, {when}, layers {list(self.layers)}{question})"
        )

    @property
    def question(self) -> str | None:
        """What was asked, if anything."""
        return self.steps[0].question

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers read, in order."""
        return self.steps[0].layers

    @property
    def frames(self) -> list[tuple[float, float]]:
        """(seconds, share) of each step. Shares sum to 1, or are all 0 where nothing of the video was looked at."""
        sums = np.array([float(step.scores[_placed(step)].sum(dtype=np.float64)) for step in self.steps])
        total = sums.sum()
        shares = sums / total if total > 0 else np.zeros(len(self))
        return list(zip(self.seconds, shares.tolist(), strict=True))

    def look(self, step: int) -> NDArray[np.float32]:
        """The look's map of one step, [H, W] float32 in [0, 1], read-only: normalised over all steps, so that 1 is
        where and when the model looked most, and one scale holds for all."""
        return np.asarray(self._together("look")[self._at(step)])

    def map(self, step: int) -> NDArray[np.float32]:
        """The highlight's map of one step, likewise; smoothed by the method's σ."""
        return np.asarray(self._together("highlight")[self._at(step)])

    def _together(self, kind: str) -> NDArray[np.float32]:
        """[steps, H, W]: the maps of all steps on one scale."""
        if kind not in self._maps:
            sigmas = [None if kind == "look" else one.sigma for one in self.steps]
            pairs = zip(self.steps, sigmas, strict=True)
            densities = np.stack([density(one.scores, one.layout, one.lam, sigma) for one, sigma in pairs])
            self._maps[kind] = normalize(densities.astype(np.float32))
            self._maps[kind].setflags(write=False)
        return self._maps[kind]

    def highlight(self, video: Video, alpha: float | None = None) -> Video:
        """The video with everything else dimmed, where and when: every frame is multiplied by the map of its step, see
        :func:`vea_sdk.evidence.highlight`.

        ``video``: the one that was looked at; ``alpha`` replaces the evidence's own. Raises InvalidInputError for a
        video with another number of frames.
        """
        if len(video.frames) != self.shown[-1][-1] + 1:
            raise InvalidInputError(f"{video} is not the one that was looked at, of {self.shown[-1][-1] + 1} frames.")
        alpha = self.steps[0].alpha if alpha is None else alpha
        frames = [
            highlight(video.frames[number], self.map(step), alpha)
            for step, numbers in enumerate(self.shown)
            for number in numbers
        ]
        return Video(tuple(frames), video.seconds)

    def overlay(self, step: int, *, legend: bool = False, opacity: float = OPACITY) -> Image.Image:
        """The step's first frame with :meth:`look` drawn over it, see :func:`vea_sdk.evidence.overlay`.

        Raises InvalidInputError for a step that is none.
        """
        return overlay(self.steps[self._at(step)].image, self.look(step), opacity=opacity, legend=legend)

    def contact_sheet(self, columns: int | None = None, *, opacity: float = OPACITY) -> Image.Image:
        """All steps in one picture: each overlay, below it its time, its share in %, and a bar as long as the share is
        beside the largest.

        ``columns``: how many side by side; by default so many that the sheet is about as wide as it is high, and at
        least 4 where there are as many steps. Raises InvalidInputError for columns that cannot be.
        """
        check_opacity(opacity)
        if columns is not None and (isinstance(columns, bool) or not isinstance(columns, int) or columns < 1):
            raise InvalidInputError(f"columns={columns!r} must be a whole number, at least 1.")
        first = self.steps[0].image
        scale = min(1.0, _CELL / max(first.size))
        width, height = (max(1, round(side * scale)) for side in first.size)
        size = 13
        font = ImageFont.load_default(size)
        captions = [(_clock(when), f"{share:.0%}", share) for when, share in self.frames]
        width_needed = max(font.getlength(f"{when}   {share}") for when, share, _ in captions)
        gap, cell, strip = 8, max(width, math.ceil(width_needed)), round(2.1 * size)
        if columns is None:
            columns = max(4, round(math.sqrt(len(self) * (height + strip + gap) / (cell + gap))))
        columns = min(columns, len(self))
        rows = math.ceil(len(self) / columns)
        sheet = Image.new("RGB", (columns * (cell + gap) + gap, rows * (height + strip + gap) + gap), "white")
        draw = ImageDraw.Draw(sheet)
        largest = max(share for *_, share in captions) or 1.0
        for number, (when, percent, share) in enumerate(captions):
            left = gap + number % columns * (cell + gap)
            top = gap + number // columns * (height + strip + gap)
            drawn = self.overlay(number, opacity=opacity)
            sheet.paste(drawn.resize((width, height), Image.Resampling.LANCZOS), (left, top))
            below = top + height
            bar = round(cell * share / largest)
            if bar:
                draw.rectangle((left, below + 2, left + bar - 1, below + 5), fill=_BAR)
            draw.text((left, below + 8), when, fill="black", font=font)
            draw.text((left + cell, below + 8), percent, fill="black", font=font, anchor="ra")
        return sheet

    def to_dict(self) -> dict[str, Any]:
        """Everything but the pixels, as plain numbers, lists and dictionaries, ready for JSON."""
        frames = [
            {"seconds": when, "share": share, "frames": list(numbers)}
            for (when, share), numbers in zip(self.frames, self.shown, strict=True)
        ]
        return {
            "question": self.question,
            "layers": list(self.layers),
            "frames": frames,
            "steps": [step.to_dict() for step in self.steps],
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any], frames: Sequence[Image.Image]) -> VideoEvidence:
        """What :meth:`to_dict` gave, with all frames of its video. Raises InvalidInputError for anything else."""
        try:
            told = values["frames"]
            shown = [tuple(int(number) for number in one["frames"]) for one in told]
            pairs = list(zip(values["steps"], (frames[numbers[0]] for numbers in shown), strict=True))
            seconds = [float(one["seconds"]) for one in told]
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise InvalidInputError(
                f"the dictionary and {len(frames)} frames are no evidence of a video ({type(error).__name__}: {error})"
                ". Give what to_dict() returned, and every frame of the video."
            ) from error
        return cls(tuple(Evidence.from_dict(step, frame) for step, frame in pairs), tuple(seconds), tuple(shown))

    def _repr_png_(self) -> bytes:
        """What a notebook shows."""
        buffer = io.BytesIO()
        self.contact_sheet().save(buffer, format="PNG")
        return buffer.getvalue()

    def _at(self, step: int) -> int:
        if isinstance(step, bool) or not isinstance(step, int) or not -len(self) <= step < len(self):
            raise InvalidInputError(f"step={step!r} is none of the {len(self)} steps, counted from 0.")
        return step % len(self)


def _placed(step: Evidence) -> NDArray[np.bool_]:
    """The tokens that show pixels: not class tokens and line ends, which draw attention wherever the model looks."""
    return np.asarray(np.isfinite(step.layout.token_boxes()).all(axis=1))


def _clock(seconds: float) -> str:
    """3.5 s; from a minute on 1:03.5."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds, 1), 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02d}:{rest:04.1f}" if hours else f"{minutes}:{rest:04.1f}"
