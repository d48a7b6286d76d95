"""One answer from several views of the picture: every token is chosen by the mean of what they say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vea_sdk.pipeline.candidates import Candidate, Cost
from vea_sdk.pipeline.outcome import First, Outcome
from vea_sdk.pipeline.renderings import renderings, restored, showing
from vea_sdk.views import View
from vea_sdk.views.shifting import plain as plain_view

if TYPE_CHECKING:
    from vea_sdk.pipeline.asking import Asking


def improve(asking: Asking, first: First) -> Outcome:
    """Generate for all views in one padded batch, greedily: token = argmax of mean over views of log p(token | view).

    The certainty is that of the mean distribution, softmax of those means. Words and their evidence are those of the
    picture itself, the first of the views.
    """
    vlm = asking.vlm
    views = [*_plain(first), *renderings(asking, first)]
    conversations = [showing(first.asked.plain(vlm.prompts), one) for one in views]
    inputs = vlm.inputs(conversations)
    placed = None
    if first.placed is not None:
        rows = vlm.place(inputs, conversations)
        placed = [restored(first, one, row) for one, row in zip(views, rows, strict=True)]
    spoken = asking.generate(inputs, placed, together=True)
    reply = asking.reply(spoken, 0, first.asked, conversations[0], None if placed is None else placed[0])
    said = reply.generated
    tried = tuple(Candidate(one[0].name, one[0].box) for one in views)
    names = ", ".join(one[0].name for one in views)
    reason = f"every token has the highest mean log-probability over {len(views)} views: {names}"
    first_tried = Candidate("ensemble", tried[0].box, 0, None, said.text, said.certainty, chosen=True)
    return Outcome(reply, reason, Cost(first.looks, 1 + len(views)), (first_tried, *tried))


def _plain(first: First) -> list[list[View]]:
    media = first.asked.conversation.media
    return [[plain_view(media[number]) for number in first.asked.conversation.shown]]  # type: ignore[arg-type]
