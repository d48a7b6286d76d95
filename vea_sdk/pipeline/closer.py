"""Look closer: which window of the picture holds the answer, and what it says."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from random import Random
from typing import TYPE_CHECKING, NamedTuple

from PIL import Image

from vea_sdk.adapters import ImageLayout
from vea_sdk.adapters.geometry import PatchGrid
from vea_sdk.errors import InvalidInputError, UnsupportedModelError
from vea_sdk.evidence import Evidence
from vea_sdk.pipeline.candidates import Candidate, Cost
from vea_sdk.pipeline.conversation import Conversation
from vea_sdk.pipeline.in_batches import in_batches
from vea_sdk.pipeline.media import Placed
from vea_sdk.pipeline.outcome import First, Outcome, Reply, said
from vea_sdk.pipeline.renderings import DECIMALS, text_of
from vea_sdk.views import View, around, windows
from vea_sdk.views.view import whole_box
from vea_sdk.views.windowing import centred

if TYPE_CHECKING:
    from vea_sdk.pipeline.asking import Asking
    from vea_sdk.pipeline.vlm import VLM

COARSE = 54
"""Looks at windows all over the picture; those beyond go around the best of them."""

REFINED = 2
"""How many of the best windows are refined."""

SAME_COUNT = 0.05
"""By how much the number of a window's image tokens may differ from the whole picture's."""

SEES_ALL = 0.9
"""Share of the picture's pixels that a model is shown, from which on windows show it nothing new."""

CENTRED_SIZES = (0.8, 0.7, 0.6, 0.9)
"""Of windows that are put at one point, in the order in which they are answered."""


def improve(asking: Asking, first: First) -> Outcome:
    """Look at windows, answer those with the highest image mass, keep the surest answer that passes the gate.

    Image mass is that of the last prompt token, Σ ā over the window's tokens, mean over the layers, before answering;
    windows are of the original pixels and make as many image tokens as the whole picture. Of several pictures, the one
    is searched that has most of the first answer's attention over its number of tokens.
    """
    search = Search(asking, first)
    way, counted = asking.way, first.reply.counted
    if search.sees_all and not way.anyway:
        return search.unsearched(
            "the model is shown all pixels of the picture already, so windows show it nothing new; anyway=True searches"
        )
    if way.stop_at is not None and counted >= way.stop_at:
        return search.unsearched(f"the first answer's certainty of {counted:.2f} reaches stop_at={way.stop_at:g}")
    search.check()
    search.run()
    return search.outcome()


class Looked(NamedTuple):
    """A window that was looked at: the ``mass`` of attention on it, the same at the whole picture's number of tokens
    (``rank``), and RAPT of the ``text``."""

    view: View
    mass: float
    rank: float
    text: float


class Search:
    """The search for a window of one question's picture."""

    def __init__(self, asking: Asking, first: First) -> None:
        self.asking, self.first = asking, first
        assert first.evidence is not None  # what has no place is refused before the model runs
        pictures = {number: first.evidence[number] for number in first.asked.conversation.shown}
        self.number = max(pictures, key=lambda number: _over_expected(pictures[number]))
        found = pictures[self.number]
        assert isinstance(found, Evidence)
        self.evidence, self.picture = found, found.image
        self.shown = first.asked.conversation.shown.index(self.number)
        self.looked: list[Looked] = []
        self.answered: dict[View, Reply] = {}
        self._layout = found.layout
        if first.placed is not None:
            layout = first.placed[self.number].layout
            assert isinstance(layout, ImageLayout)
            self._layout = layout

    @property
    def sees_all(self) -> bool:
        """Whether the model that answers is shown as many pixels as the picture has."""
        x0, y0, x1, y1 = self._layout.input_region
        height, width = self._layout.input_size
        return height * width >= SEES_ALL * (x1 - x0) * (y1 - y0)

    def check(self) -> None:
        """Raise for what cannot be searched, before any window is looked at."""
        way, eye = self.asking.way, self.asking.vlm.eye
        if way.rank_by == "image_mass" and eye.adapter.cross_attention:
            raise UnsupportedModelError(
                f"{eye.adapter.name} attends to pictures in layers of their own, whose rows hold nothing else, so the "
                'attention on a window ranks nothing. Pass rank_by="peak", or let another model look: attend_with=.'
            )
        smallest = windows()(self.picture)[-1]
        height, width = self.picture.height / self.evidence.layout.grid_size[0], self.picture.width
        cell = max(height, width / self.evidence.layout.grid_size[1])
        if min(smallest.image.size) < cell:
            raise InvalidInputError(
                f"the smallest window of a picture of {self.picture.width}x{self.picture.height} pixels would be less "
                f"than a patch of {cell:.0f} pixels. Ask in another mode."
            )
        if way.show == "both":
            try:
                conversation = self._conversation(smallest, self._plain(), resized=False)
                self.asking.vlm.place(self.asking.vlm.inputs([conversation]), [conversation])
            except Exception as error:  # processors refuse a second picture in ways of their own
                name = type(self.asking.vlm.processor).__name__
                raise InvalidInputError(
                    f'show="both" shows two pictures in one turn, which this {name} refuses '
                    f'({type(error).__name__}: {error}). Use show="window".'
                ) from error

    # -- looking

    def run(self) -> None:
        """Look, and answer what is best."""
        way = self.asking.way
        if way.rank_by != "image_mass":
            return self._answer(self._unlooked(way.answers))
        self._resize_looks = self._makes_fewer_tokens(self.asking.vlm.eye, self.evidence.layout)
        coarse = windows()(self.picture)
        if self._look(coarse if way.looks >= COARSE else _spread(coarse, way.looks)):
            return None
        if way.looks > COARSE:
            known = {one.view.box for one in self.looked}
            finer = [view for one in self._best(REFINED) for view in around(one.view.box)(self.picture)]
            new = list({view.box: view for view in finer if view.box not in known}.values())
            if self._look(new[: way.looks - COARSE]):
                return None
        return self._answer([one.view for one in self._best(way.answers)])

    def _look(self, views: Sequence[View]) -> bool:
        """Look at windows. With ``stop_at``, the best so far is answered after each batch; True: it is sure enough."""
        way = self.asking.way
        step = way.batch_size if way.stop_at is not None else max(1, len(views))
        for start in range(0, len(views), step):
            batch = views[start : start + step]
            self.looked += in_batches(batch, way.batch_size, self._look_at_once)
            if way.stop_at is not None:
                self._answer([one.view for one in self._best(1)])
                if any(self._passes(reply) and reply.counted >= way.stop_at for reply in self.answered.values()):
                    return True
        return False

    def _look_at_once(self, views: Sequence[View]) -> list[Looked]:
        asked = [
            replace(
                self.first.asked, conversation=self._showing(self.first.asked.conversation, view, self._resize_looks)
            )
            for view in views
        ]
        rows = self.asking.vlm._attend(asked, self.asking.layers, self.asking.constants)
        return [self._rated(view, row[self.number]) for view, row in zip(views, rows, strict=True)]

    def _rated(self, view: View, evidence: object) -> Looked:
        assert isinstance(evidence, Evidence)
        mass, tokens, whole = float(evidence.scores.sum()), evidence.layout.n_tokens, self.evidence.layout.n_tokens
        same = abs(tokens - whole) <= SAME_COUNT * whole
        return Looked(view, mass, mass if same else mass * whole / tokens, text_of(evidence))

    def _best(self, count: int) -> list[Looked]:
        """The windows with the highest image mass; of equal ones those with less attention on the text, then those that
        were looked at earlier."""
        return sorted(self.looked, key=lambda one: (-round(one.rank, DECIMALS), one.text))[:count]

    def _unlooked(self, count: int) -> list[View]:
        """Windows that are answered without being looked at."""
        way = self.asking.way
        if way.rank_by == "random":
            every = windows()(self.picture)
            return Random(zlib.crc32(self.picture.tobytes())).sample(every, min(count, len(every)))
        x, y = self.picture.width / 2, self.picture.height / 2
        if way.rank_by == "peak":
            look = self.evidence.look()
            row, column = divmod(int(look.argmax()), look.shape[1])
            x, y = column + 0.5, row + 0.5
        return centred(x, y, CENTRED_SIZES)(self.picture)[:count]

    def _makes_fewer_tokens(self, vlm: VLM, whole: ImageLayout) -> bool:
        """Whether a model's processor makes another number of tokens of a window than of the picture; then windows are
        enlarged to the picture's size, of which it makes as many."""
        smallest = windows()(self.picture)[-1]
        conversation = self._showing(self.first.asked.plain(vlm.prompts), smallest, resized=False)
        layout = vlm.place(vlm.inputs([conversation]), [conversation])[0][self.number].layout
        return abs(layout.n_tokens - whole.n_tokens) > SAME_COUNT * whole.n_tokens

    # -- answering

    @cached_property
    def _resize_answers(self) -> bool:
        """Whether windows are enlarged for the model that answers; with ``stop_at`` it is asked several times."""
        return self.first.placed is not None and self._makes_fewer_tokens(self.asking.vlm, self._layout)

    def _answer(self, views: Sequence[View]) -> None:
        """Ask about windows that were not asked about yet."""
        new = [view for view in views if view not in self.answered]
        if not new:
            return
        plain = self._plain()
        conversations = [self._conversation(view, plain, self._resize_answers) for view in new]
        replies = self.asking.replies(
            [self.first.asked] * len(new), conversations, lambda number, row: self._restored(new[number], row)
        )
        self.answered |= dict(zip(new, replies, strict=True))

    def _plain(self) -> Conversation:
        return self.first.asked.plain(self.asking.vlm.prompts)

    def _conversation(self, view: View, plain: Conversation, resized: bool) -> Conversation:
        """As a window is asked about: in the picture's place, or beside it."""
        if self.asking.way.show == "both":
            return plain.beside(self.number, self._image(view, resized))
        return self._showing(plain, view, resized)

    def _showing(self, conversation: Conversation, view: View, resized: bool) -> Conversation:
        media = conversation.media
        media[self.number] = self._image(view, resized)
        return conversation.showing(media)

    def _image(self, view: View, resized: bool) -> Image.Image:
        return view.image.resize(self.picture.size, Image.Resampling.BICUBIC) if resized else view.image

    def _restored(self, view: View, row: list[Placed]) -> list[Placed]:
        """The tokens of a window where they lie on the whole picture."""
        size = (self.picture.height, self.picture.width)
        at = self.number
        both = self.asking.way.show == "both"
        window = row[at + 1 if both else at]
        assert isinstance(window.layout, ImageLayout)
        layout = view.original_layout(window.layout, size)
        if both:
            whole = row[at].layout
            assert isinstance(whole, ImageLayout)
            layout = _joined(whole, layout)
        return [*row[:at], Placed(self.picture, layout, row[at].first_token), *row[at + (2 if both else 1) :]]

    # -- choosing

    def _passes(self, reply: Reply) -> bool:
        gate = self.asking.way.gate(self.asking.vlm.min_certainty)
        return gate.passes(self.first.reply.counted, reply.counted)

    def outcome(self) -> Outcome:
        """The surest answer that passes the gate, else the first."""
        views = list(self.answered)
        replies = [self.answered[view] for view in views]
        gate = self.asking.way.gate(self.asking.vlm.min_certainty)
        chosen = gate.surest(self.first.reply.counted, [reply.counted for reply in replies])
        counted = self.first.reply.counted
        cost = Cost(self.first.looks + len(self.looked), 1 + len(views))
        if chosen is None:
            surest = max((reply.counted for reply in replies), default=0.0)
            reason = (
                f"the first answer stays: of {len(views)} windows none was answered more surely than {counted:.2f}"
                f"{gate}; the surest reached {surest:.2f}"
            )
            return Outcome(self.first.reply, reason, cost, self.candidates(None))
        view, reply = views[chosen], replies[chosen]
        reason = (
            f"{view.name} was answered more surely than the whole picture: {reply.counted:.2f} against {counted:.2f}"
        )
        return Outcome(reply, reason, cost, self.candidates(view), view.box)

    def unsearched(self, reason: str) -> Outcome:
        """The first answer, for a reason."""
        return Outcome(
            self.first.reply, f"answered plainly: {reason}", Cost(self.first.looks, 1), self.candidates(None)
        )

    def candidates(self, chosen: View | None) -> tuple[Candidate, ...]:
        """The whole picture, then the windows as they were looked at."""
        base = self.first.reply.generated
        mass = float(self.evidence.scores.sum())
        whole = Candidate(
            "plain", whole_box(self.picture), self.shown, mass, base.text, base.certainty, chosen=chosen is None
        )
        masses: dict[View, float | None] = {one.view: one.mass for one in self.looked}
        tried = masses | {view: masses.get(view) for view in self.answered}
        return (whole, *(self._candidate(view, mass, view is chosen) for view, mass in tried.items()))

    def _candidate(self, view: View, mass: float | None, chosen: bool) -> Candidate:
        text, certainty = said(self.answered.get(view))
        return Candidate(view.name, view.box, self.shown, mass, text, certainty, chosen)


def _over_expected(evidence: object) -> float:
    """Attention on a picture over its number of tokens."""
    assert isinstance(evidence, Evidence)
    return float(evidence.scores.sum()) / evidence.layout.n_tokens


def _spread(views: Sequence[View], count: int) -> list[View]:
    """``count`` of the views, evenly spaced among them."""
    if count == 1:
        return [views[len(views) // 2]]
    return [views[round(place * (len(views) - 1) / (count - 1))] for place in range(count)]


def _joined(whole: ImageLayout, part: ImageLayout) -> ImageLayout:
    """One layout of the tokens of a picture and of those of a window of it, which follow them."""
    finer = [PatchGrid(grid.region, grid.token_index + whole.n_tokens) for grid in part.grids]
    return replace(whole, n_tokens=whole.n_tokens + part.n_tokens, grids=(*whole.grids, *finer))
