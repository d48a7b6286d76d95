"""Ask, look, and ask again, in one of several ways: one padded batch of questions."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
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
from vea_sdk.pipeline import closer, ensemble, renderings
from vea_sdk.pipeline.answer import Answer, Clock
from vea_sdk.pipeline.candidates import Cost
from vea_sdk.pipeline.conversation import Asked, Conversation
from vea_sdk.pipeline.generation import Generated, Generation
from vea_sdk.pipeline.in_batches import in_batches
from vea_sdk.pipeline.inputs import entry_device
from vea_sdk.pipeline.media import Found, Medium, Placed, evidence_of_row
from vea_sdk.pipeline.outcome import First, Outcome, Reply
from vea_sdk.pipeline.replay import replaying
from vea_sdk.pipeline.ways import Mode, Way
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
    way: Way
    highlight_on: HighlightOn
    words: bool
    layers: tuple[int, ...]
    constants: Constants
    generation: Generation

    @property
    def mode(self) -> Mode:
        return self.way.mode

    def run(self, asked: Sequence[Asked]) -> list[Answer[Any]]:
        """The answers of one batch."""
        vlm, clock = self.vlm, Clock()
        for one in asked:
            self._check_shown(one)
        on_tensor = self.highlight_on == "tensor" and self.mode == "highlight"
        processor = replaying(vlm.processor) if on_tensor else vlm.processor
        conversations = [one.plain(vlm.prompts) for one in asked]
        inputs = vlm.inputs(conversations, processor)
        # What cannot be laid out or highlighted is refused before the model runs.
        placed = self._placed(inputs, conversations)
        canvases = self._canvases(placed or (), processor) if on_tensor else None
        clock.lap("prepare")
        spoken = self.generate(inputs, placed)
        clock.lap("baseline")
        evidence = self._evidence(asked, spoken, placed)
        looks = 0 if vlm.attend_with is None else 1
        firsts = [
            First(
                one,
                self.reply(spoken, number, one, conversations[number], None if placed is None else placed[number]),
                None if evidence is None else evidence[number],
                None if placed is None else placed[number],
                looks,
            )
            for number, one in enumerate(asked)
        ]
        if self.mode == "highlight" and evidence is not None:
            outcomes = self._highlight(firsts, evidence, placed, canvases, processor, clock)
        else:
            clock.lap("evidence")
            improve = IMPROVED_BY.get(self.mode, _asked_once)
            outcomes = [improve(self, first) for first in firsts]
            if self.mode in IMPROVED_BY:
                clock.lap("answer")
        return [self._answer(*pair, clock) for pair in zip(firsts, outcomes, strict=True)]

    def _check_shown(self, asked: Asked) -> None:
        media = asked.conversation.media
        if self.mode in IMPROVED_BY and any(isinstance(media[number], Video) for number in asked.conversation.shown):
            raise InvalidInputError(
                f'mode="{self.mode}" is for pictures; ask about a video with "highlight" or "none".'
            )

    def _highlight(
        self,
        firsts: Sequence[First],
        evidence: Sequence[Sequence[Found]],
        placed: Sequence[Sequence[Placed]] | None,
        canvases: Sequence[Sequence[Canvas]] | None,
        processor: Any,
        clock: Clock,
    ) -> list[Outcome]:
        """Ask again, with what was looked at highlighted."""
        asked = [first.asked for first in firsts]
        highlighted = [_highlighted(one, row) for one, row in zip(asked, evidence, strict=True)]
        again = [one.pointing(self.vlm.prompts, row) for one, row in zip(asked, highlighted, strict=True)]
        gains = None if canvases is None else self._gains(asked, evidence, canvases)
        clock.lap("evidence")
        inputs = self._inputs_again(asked, again, gains, processor)
        spoken = self.generate(inputs, placed)
        clock.lap("answer")
        return [
            Outcome(
                self.reply(spoken, number, first.asked, again[number], first.placed),
                'asked again with the evidence highlighted: mode "highlight" keeps the second answer',
                Cost(first.looks, 2),
                highlighted=highlighted[number],
            )
            for number, first in enumerate(firsts)
        ]

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

    def generate(
        self, inputs: Mapping[str, Any], placed: Sequence[Sequence[Placed]] | None, *, together: bool = False
    ) -> Spoken:
        """Run ``generate()``, and capture what its rows are needed for; ``together``: see :meth:`Generation.run`."""
        no_words = self._why_no_words(placed)
        own_evidence = self.vlm.attend_with is None and placed is not None
        session = None
        if own_evidence or no_words is None:
            layers = self.layers if self.vlm.attend_with is None else self._own_layers()
            session = Session(self.vlm.model, layers, "last" if no_words else "all", None, None, self.vlm.adapter)
        with session or nullcontext():
            length = self.vlm.prompt_length(inputs)
            generated = self.generation.run(self.vlm.processor, inputs, length, together=together)
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

    # -- what the other ways of asking are made of

    def look_at(self, asked: Sequence[Asked]) -> list[list[Found]]:
        """The evidence of every row, by the model that looks, ``batch_size`` rows at a time."""
        return in_batches(
            asked, self.way.batch_size, lambda batch: self.vlm._attend(batch, self.layers, self.constants)
        )

    def replies(
        self,
        asked: Sequence[Asked],
        conversations: Sequence[Conversation],
        restore: Callable[[int, list[Placed]], list[Placed]],
    ) -> list[Reply]:
        """Ask several conversations in padded batches.

        Args:
            asked: the question of each.
            conversations: as they are sent.
            restore: how the pictures of a conversation, by its number, lie on those that were asked about.
        """

        def run(numbers: Sequence[int]) -> list[Reply]:
            batch = [conversations[number] for number in numbers]
            inputs = self.vlm.inputs(batch)
            found = self._placed(inputs, batch)
            placed = None if found is None else [restore(*pair) for pair in zip(numbers, found, strict=True)]
            spoken = self.generate(inputs, placed)
            return [
                self.reply(spoken, row, asked[number], batch[row], None if placed is None else placed[row])
                for row, number in enumerate(numbers)
            ]

        numbers = range(len(conversations))
        return [reply for rows in self.vlm.batches(numbers) for reply in in_batches(rows, self.way.batch_size, run)]

    def reply(
        self,
        spoken: Spoken,
        number: int,
        asked: Asked,
        conversation: Conversation,
        placed: Sequence[Placed] | None,
    ) -> Reply:
        """One row of what was spoken, with all that its words are made from."""
        generated = spoken.generated[number]
        words: WordSource | NoWords
        if spoken.no_words is not None or spoken.rows is None or placed is None:
            words = spoken.no_words or NoWords()
        else:
            tokenizer = tokenizer_of(self.vlm.processor)
            words = WordSource(
                generated, tokenizer, spoken.rows, number, placed, asked.question, self.constants, asked.single
            )
        counted = self.way.counted(generated.text, generated.certainty)
        return Reply(generated, conversation.text, words, counted)

    def _answer(self, first: First, outcome: Outcome, clock: Clock) -> Answer[Any]:
        base, last, single = first.reply.generated, outcome.reply.generated, first.asked.single
        found, shown = first.evidence, outcome.highlighted
        below = self.way.abstain_below
        abstained = below is not None and outcome.reply.counted < below
        reason = outcome.reason
        if abstained:
            reason += f"; abstained, for its certainty of {outcome.reply.counted:.2f} is below {below:g}"
        return Answer(
            last.text,
            base.text,
            found[0] if found and single else found,
            self.mode,
            highlighted=shown[0] if shown and single else shown,
            timings=clock.laps,
            prompt=outcome.reply.prompt,
            baseline_prompt=first.reply.prompt,
            certainty=last.certainty,
            certainty_per_token=last.certainty_per_token,
            baseline_certainty=base.certainty,
            finished=last.finished,
            abstained=abstained,
            reason=reason,
            candidates=outcome.candidates,
            window=outcome.window,
            cost=outcome.cost,
            highlighted_images=first.asked.conversation.shown if shown else (),
            outputs={
                name: given.output for name, given in (("baseline", base), ("answer", last)) if given.output is not None
            },
            tokens=tuple(last.tokens.tolist()),
            asked_by=self.vlm,
            asked=first.asked,
            word_source=outcome.reply.words,
            baseline_word_source=first.reply.words,
        )


def _asked_once(asking: Asking, first: First) -> Outcome:
    if asking.mode != "none":
        return Outcome(first.reply, "asked once, for it is not known where the model looked", Cost(first.looks, 1))
    return Outcome(first.reply, 'asked once: mode "none"', Cost(first.looks, 1))


IMPROVED_BY: Mapping[str, Callable[[Asking, First], Outcome]] = {
    "closer": closer.improve,
    "views": renderings.improve,
    "ensemble": ensemble.improve,
}
"""The ways of asking that go on from a first answer, question by question."""


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
