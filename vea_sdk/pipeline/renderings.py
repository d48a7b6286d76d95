"""Ask about the rendering of a picture that the model makes most of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from vea_sdk.adapters import ImageLayout
from vea_sdk.errors import InvalidInputError, UnsupportedModelError
from vea_sdk.evidence import Evidence
from vea_sdk.pipeline.candidates import Candidate, Cost, Gate
from vea_sdk.pipeline.conversation import Asked, Conversation
from vea_sdk.pipeline.media import Found, Medium, Placed
from vea_sdk.pipeline.outcome import First, Outcome, Reply, said
from vea_sdk.views import View
from vea_sdk.views.view import whole_box

if TYPE_CHECKING:
    from vea_sdk.pipeline.asking import Asking

DECIMALS = 6
"""Of image masses: those that are equal when rounded are told apart by the attention on the text."""

Rendered = list[View]
"""One view of every picture that the question is about."""


def improve(asking: Asking, first: First) -> Outcome:
    """Look at renderings of the pictures, and answer the one with the highest image mass; or answer all, and keep the
    surest (``choose_by="certainty"``)."""
    way = asking.way
    rendered = renderings(asking, first)
    eye = asking.vlm.eye
    if way.choose_by == "image_mass" and eye.adapter.cross_attention:
        raise UnsupportedModelError(
            f"{eye.adapter.name} attends to pictures in layers of their own, whose rows hold nothing else, so the "
            'attention on a rendering ranks nothing. Pass choose_by="certainty".'
        )
    if way.choose_by == "image_mass":
        return _by_mass(asking, first, rendered)
    replies = answer(asking, first, rendered)
    gate = _gate(asking)
    chosen = gate.surest(first.reply.counted, [reply.counted for reply in replies])
    cost = Cost(first.looks, 1 + len(rendered))
    if chosen is None:
        reason = f"no rendering was answered more surely than the plain picture ({first.reply.counted:.2f}){gate}"
        kept = first.reply
    else:
        kept = replies[chosen]
        reason = (
            f"{rendered[chosen][0].name} was answered the most surely: {kept.counted:.2f} against "
            f"{first.reply.counted:.2f} for the plain picture"
        )
    return Outcome(
        kept, reason, cost, _candidates(first, rendered, [None] * len(rendered), dict(enumerate(replies)), chosen)
    )


def _by_mass(asking: Asking, first: First, rendered: Sequence[Rendered]) -> Outcome:
    assert first.evidence is not None
    shown = first.asked.conversation.shown
    asked = [_asked_about(asking, first, one) for one in rendered]
    rows = [first.evidence, *asking.look_at(asked)]
    plain, *masses = [mass_of(row, shown) for row in rows]
    best = min(range(len(rows)), key=lambda number: mass_order(rows[number], shown)) - 1
    cost = Cost(first.looks + len(masses), 1)
    if best < 0:
        reason = f"the plain picture has the highest image mass, {plain:.3f} of {1 + len(masses)} renderings"
        return Outcome(first.reply, reason, cost, _candidates(first, rendered, masses, {}, None))
    reply = answer(asking, first, [rendered[best]])[0]
    cost, name = Cost(cost.looks, 2), rendered[best][0].name
    gate = _gate(asking)
    if gate.min_certainty is not None and not gate.passes(first.reply.counted, reply.counted):
        reason = (
            f"{name} has the highest image mass, but its answer's certainty of {reply.counted:.2f} is not surer{gate}"
        )
        return Outcome(first.reply, reason, cost, _candidates(first, rendered, masses, {best: reply}, None))
    reason = f"{name} has the highest image mass: {masses[best]:.3f} against {plain:.3f} of the plain picture"
    return Outcome(reply, reason, cost, _candidates(first, rendered, masses, {best: reply}, best))


def renderings(asking: Asking, first: First) -> list[Rendered]:
    """The views of all pictures that the question is about, but for the plain ones of the first answer."""
    assert first.evidence is not None
    of_each = []
    for number in first.asked.conversation.shown:
        evidence = first.evidence[number]
        assert isinstance(evidence, Evidence)
        views = asking.way.renderings(evidence.image, evidence)
        if not isinstance(views, Sequence) or not all(isinstance(view, View) for view in views):
            raise InvalidInputError("views= must make a list of vea.views.View of a picture; see vea.views.repairs().")
        of_each.append([view for view in views if view.name != "plain"])
    if not of_each[0] or len({len(views) for views in of_each}) > 1:
        raise InvalidInputError(
            f"views= made {[len(views) for views in of_each]} views beside the plain picture: it must make as many of "
            "every picture, and at least one."
        )
    return [list(one) for one in zip(*of_each, strict=True)]


def answer(asking: Asking, first: First, rendered: Sequence[Rendered]) -> list[Reply]:
    """Ask about each."""
    plain = first.asked.plain(asking.vlm.prompts)
    conversations = [showing(plain, one) for one in rendered]
    return asking.replies(
        [first.asked] * len(rendered), conversations, lambda number, row: restored(first, rendered[number], row)
    )


def showing(conversation: Conversation, views: Rendered) -> Conversation:
    """A conversation with views in the places of the pictures that it is about."""
    media: list[Medium] = conversation.media
    for number, view in zip(conversation.shown, views, strict=True):
        media[number] = view.image
    return conversation.showing(media)


def restored(first: First, views: Rendered, row: list[Placed]) -> list[Placed]:
    """The tokens of views where they lie on the pictures."""
    assert first.evidence is not None
    found = list(row)
    for number, view in zip(first.asked.conversation.shown, views, strict=True):
        evidence, placed = first.evidence[number], row[number]
        assert isinstance(evidence, Evidence)
        assert isinstance(placed.layout, ImageLayout)
        layout = view.original_layout(placed.layout, (evidence.image.height, evidence.image.width))
        found[number] = Placed(evidence.image, layout, placed.first_token)
    return found


def mass_order(evidence: Sequence[Found], shown: Sequence[int]) -> tuple[float, float]:
    """Sorts looks by their image mass, the highest first; of equal ones by the attention on the text."""
    one = evidence[shown[0]]
    assert isinstance(one, Evidence)
    return -round(mass_of(evidence, shown), DECIMALS), text_of(one)


def text_of(evidence: Evidence) -> float:
    """RAPT of the prompt's text, mean over the layers."""
    return float(evidence.stats["rapt_text"].mean()) if "rapt_text" in evidence.stats else 0.0


def mass_of(evidence: Sequence[Found], shown: Sequence[int]) -> float:
    """Attention on the pictures that the question is about, mean over the layers."""
    found = 0.0
    for number in shown:
        one = evidence[number]
        assert isinstance(one, Evidence)
        found += float(one.scores.sum())
    return found


def _asked_about(asking: Asking, first: First, views: Rendered) -> Asked:
    return replace(first.asked, conversation=showing(first.asked.conversation, views))


def _gate(asking: Asking) -> Gate:
    """The profile's threshold is for windows; here one holds where it was given."""
    given = asking.way.min_certainty
    return Gate(None if given == "profiled" else given)


def _candidates(
    first: First,
    rendered: Sequence[Rendered],
    masses: Sequence[float | None],
    replies: Mapping[int, Reply],
    chosen: int | None,
) -> tuple[Candidate, ...]:
    """The plain picture and all renderings; of several pictures, boxes are of the first."""
    assert first.evidence is not None
    base, shown = first.reply.generated, first.asked.conversation.shown
    found = first.evidence[shown[0]]
    assert isinstance(found, Evidence)
    mass = mass_of(first.evidence, shown)
    tried = [Candidate("plain", whole_box(found.image), 0, mass, base.text, base.certainty, chosen=chosen is None)]
    for number, (views, one) in enumerate(zip(rendered, masses, strict=True)):
        tried.append(Candidate(views[0].name, views[0].box, 0, one, *said(replies.get(number)), number == chosen))
    return tuple(tried)
