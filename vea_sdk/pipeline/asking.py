"""Ask, look, highlight, ask again: one padded batch of questions."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor

from vea_sdk.adapters import ImageLayout
from vea_sdk.adapters.canvas import Canvas
from vea_sdk.capture import Session
from vea_sdk.capture.evidence import Rows
from vea_sdk.capture.layers import resolve_layers
from vea_sdk.errors import GeometryError, InvalidInputError, UnsupportedModelError
from vea_sdk.evidence import Evidence
from vea_sdk.evidence.constants import Constants
from vea_sdk.evidence.fused import Inexact, gain_maps
from vea_sdk.evidence.video import VideoEvidence
from vea_sdk.evidence.videos import Video
from vea_sdk.pipeline.answer import Answer, Clock, Mode
from vea_sdk.pipeline.conversation import Asked, Conversation
from vea_sdk.pipeline.generation import Generated, Generation
from vea_sdk.pipeline.inputs import entry_device
from vea_sdk.pipeline.media import Found, Medium, Placed, evidence_of_row
from vea_sdk.pipeline.replay import replaying
from vea_sdk.pipeline.words import NoWords, WordSource

if TYPE_CHECKING:
    from vea_sdk.pipeline.vlm import VLM

HighlightOn = Literal["picture", "tensor"]


@dataclass(frozen=True)
class Spoken:
    """What one run of ``generate()`` gave for a batch.

    ``generated``: of every row. ``rows``: the attention that was captured meanwhile, None where none was.
    ``no_words``: why no rows belong to the tokens.
    """

    generated: list[Generated]
    rows: Rows | None
    no_words: NoWords | None


@dataclass(frozen=True)
class Asking:
    """How a wrapped model is asked; see :meth:`VLM.ask` for the parts."""

    vlm: VLM
    mode: Mode
    highlight_on: HighlightOn
    words: bool
    layers: tuple[int, ...]
    constants: Constants
    generation: Generation

    def run(self, asked: Sequence[Asked]) -> list[Answer[Any]]:
        """The answers of one batch."""
        vlm, clock = self.vlm, Clock()
        on_tensor = self.highlight_on == "tensor" and self.mode == "highlight"
        processor = replaying(vlm.processor) if on_tensor else vlm.processor
        conversations = [one.plain(vlm.prompts) for one in asked]
        inputs = vlm.inputs(conversations, processor)
        # What cannot be laid out or highlighted is refused before the model runs.
        placed = self._placed(inputs, conversations)
        canvases = self._canvases(placed or (), processor) if on_tensor else None
        clock.lap("prepare")
        first = self._generate(inputs, placed)
        clock.lap("baseline")
        evidence = self._evidence(asked, first, placed)
        if self.mode == "none" or evidence is None:
            clock.lap("evidence")
            return self._answers(asked, conversations, first, evidence, placed, clock)
        highlighted = [_highlighted(one, row) for one, row in zip(asked, evidence, strict=True)]
        again = [one.pointing(vlm.prompts, row) for one, row in zip(asked, highlighted, strict=True)]
        gains = None if canvases is None else self._gains(asked, evidence, canvases)
        clock.lap("evidence")
        inputs = self._inputs_again(asked, again, gains, processor)
        second = self._generate(inputs, placed)
        clock.lap("answer")
        return self._answers(asked, conversations, first, evidence, placed, clock, second, again, highlighted)

    def _placed(self, inputs: Mapping[str, Any], conversations: Sequence[Conversation]) -> list[list[Placed]] | None:
        """How the answering model sees the pictures; None where that is not known and not needed."""
        delegated = self.vlm.attend_with is not None
        try:
            return self.vlm.place(inputs, conversations)
        except (GeometryError, UnsupportedModelError):
            if (self.mode == "none" or delegated) and self.highlight_on == "picture":
                return None
            raise

    def _canvases(self, placed: Sequence[Sequence[Placed]], processor: Any) -> list[list[Canvas]]:
        """What ``pixel_values`` hold of each picture."""
        layouts = [one.layout for row in placed for one in row]
        pictures = [one for one in layouts if isinstance(one, ImageLayout)]
        if len(pictures) < len(layouts):
            raise InvalidInputError('highlight_on="tensor" is for pictures; a video is highlighted frame by frame.')
        return [self.vlm.adapter.canvases(one, processor) for one in pictures]

    def _generate(self, inputs: Mapping[str, Any], placed: Sequence[Sequence[Placed]] | None) -> Spoken:
        """Run ``generate()``, and capture what its rows are needed for."""
        no_words = self._why_no_words(placed)
        own_evidence = self.vlm.attend_with is None and placed is not None
        session = None
        if own_evidence or no_words is None:
            layers = self.layers if self.vlm.attend_with is None else self._own_layers()
            session = Session(self.vlm.model, layers, "last" if no_words else "all", None, None, self.vlm.adapter)
        with session or nullcontext():
            generated = self.generation.run(self.vlm.processor, inputs, self.vlm.prompt_length(inputs))
        rows = None if session is None else Rows.of(session)
        if rows is not None and no_words is None and rows.count < max(len(one.tokens) for one in generated):
            no_words = NoWords(f"generate() fed {rows.count} rows for {max(len(g.tokens) for g in generated)} tokens")
        return Spoken(generated, rows, no_words)

    def _why_no_words(self, placed: Sequence[Sequence[Placed]] | None) -> NoWords | None:
        if not self.words:
            return NoWords("the question was asked with words=False")
        if placed is None:
            return NoWords("it is not known which part of the picture each token of this model shows")
        if not hasattr(tokenizer_of(self.vlm.processor), "decode"):
            return NoWords(f"this {type(self.vlm.processor).__name__} has no tokenizer")
        reason = self.generation.why_no_rows
        return None if reason is None else NoWords(reason)

    def _own_layers(self) -> tuple[int, ...]:
        """Those of the model that answers, where another one attends."""
        with warnings.catch_warnings():  # the layers that matter are the other model's
            warnings.simplefilter("ignore")
            return resolve_layers("profiled", self.vlm.adapter)

    def _evidence(
        self, asked: Sequence[Asked], first: Spoken, placed: Sequence[Sequence[Placed]] | None
    ) -> list[list[Found]] | None:
        if self.vlm.attend_with is not None:
            return self.vlm._attend(asked, self.layers, self.constants)
        if first.rows is None or placed is None:
            return None
        return [
            evidence_of_row(first.rows, number, row, one.question, self.constants)
            for number, (one, row) in enumerate(zip(asked, placed, strict=True))
        ]

    def _gains(
        self, asked: Sequence[Asked], evidence: Sequence[Sequence[Found]], canvases: Sequence[Sequence[Canvas]]
    ) -> list[list[Tensor]]:
        """What to multiply ``pixel_values`` by, picture by picture; the evidence may be that of another model."""
        device, left, gains = entry_device(self.vlm.model), iter(canvases), []
        for one, row in zip(asked, evidence, strict=True):
            for number, found in enumerate(row):
                assert isinstance(found, Evidence)  # of videos there are no canvases
                alpha = found.alpha if number in one.conversation.shown else 1.0  # 1 changes nothing
                gains.append(gain_maps(found.map(), next(left), alpha, device))
        return gains

    def _inputs_again(
        self,
        asked: Sequence[Asked],
        again: Sequence[Conversation],
        gains: Sequence[Sequence[Tensor]] | None,
        processor: Any,
    ) -> Any:
        """Model inputs of the second question: highlighted tensors where that is exact, else highlighted pictures."""
        if gains is not None:
            same = [two.showing(one.conversation.media) for one, two in zip(asked, again, strict=True)]
            try:
                return self.vlm.inputs(same, processor, gains)
            except Inexact as reason:
                warnings.warn(
                    f'{reason} The picture itself is highlighted, as with highlight_on="picture".', stacklevel=4
                )
        return self.vlm.inputs(again)

    def _answers(
        self,
        asked: Sequence[Asked],
        conversations: Sequence[Conversation],
        first: Spoken,
        evidence: Sequence[Sequence[Found]] | None,
        placed: Sequence[Sequence[Placed]] | None,
        clock: Clock,
        second: Spoken | None = None,
        again: Sequence[Conversation] = (),
        highlighted: Sequence[Sequence[Medium]] = (),
    ) -> list[Answer[Any]]:
        answers = []
        for number, one in enumerate(asked):
            base = first.generated[number]
            last = base if second is None else second.generated[number]
            sources = [self._word_source(spoken, asked[number], number, placed) for spoken in (first, second) if spoken]
            found = None if evidence is None else evidence[number]
            shown = list(highlighted[number]) if highlighted else None
            answers.append(
                Answer(
                    last.text,
                    base.text,
                    found[0] if found and one.single else found,
                    self.mode,
                    highlighted=shown[0] if shown and one.single else shown,
                    timings=clock.laps,
                    prompt=(again or conversations)[number].text,
                    baseline_prompt=conversations[number].text,
                    certainty=last.certainty,
                    certainty_per_token=last.certainty_per_token,
                    baseline_certainty=base.certainty,
                    finished=last.finished,
                    highlighted_images=one.conversation.shown if shown else (),
                    outputs={
                        name: given.output
                        for name, given in (("baseline", base), ("answer", last))
                        if given.output is not None
                    },
                    word_source=sources[-1],
                    baseline_word_source=sources[0],
                )
            )
        return answers

    def _word_source(
        self, spoken: Spoken, asked: Asked, number: int, placed: Sequence[Sequence[Placed]] | None
    ) -> WordSource | NoWords:
        if spoken.no_words is not None or spoken.rows is None or placed is None:
            return spoken.no_words or NoWords()
        tokenizer = tokenizer_of(self.vlm.processor)
        return WordSource(
            spoken.generated[number],
            tokenizer,
            spoken.rows,
            number,
            placed[number],
            asked.question,
            self.constants,
            asked.single,
        )


def _highlighted(asked: Asked, evidence: Sequence[Found]) -> list[Medium]:
    """The pictures and videos that the question is about, highlighted."""
    media, found = asked.conversation.media, list[Medium]()
    for number in asked.conversation.shown:
        one, medium = evidence[number], media[number]
        if isinstance(one, VideoEvidence):
            assert isinstance(medium, Video)
            found.append(one.highlight(medium))
        else:
            found.append(one.highlight())
    return found


def tokenizer_of(processor: Any) -> Any:
    """A combined processor's tokenizer; a tokenizer stands for itself."""
    return getattr(processor, "tokenizer", processor)
