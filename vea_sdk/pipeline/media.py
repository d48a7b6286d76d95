"""Pictures and videos of a conversation: where their tokens lie, and what the model saw in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from PIL import Image

from vea_sdk.adapters import Adapter, ImageLayout, VideoLayout
from vea_sdk.capture.evidence import Rows, evidence_of_one
from vea_sdk.capture.video import video_evidence_of
from vea_sdk.evidence import Evidence
from vea_sdk.evidence.constants import Constants
from vea_sdk.evidence.video import VideoEvidence
from vea_sdk.evidence.videos import Video

if TYPE_CHECKING:
    from vea_sdk.pipeline.conversation import Conversation

Medium = Image.Image | Video
Found = Evidence | VideoEvidence


class Placed(NamedTuple):
    """A picture or video of a prompt: how it became tokens, and where they begin among its row's image tokens."""

    medium: Medium
    layout: ImageLayout | VideoLayout
    first_token: int


def place(
    adapter: Adapter, inputs: Mapping[str, Any], conversations: Sequence[Conversation], processor: Any
) -> list[list[Placed]]:
    """Where the tokens of every row's pictures and videos lie, in the order in which they are shown.

    Raises GeometryError where that is not known.
    """
    media = [one.media for one in conversations]
    pictures = [one for row in media for one in row if isinstance(one, Image.Image)]
    videos = [one for row in media for one in row if isinstance(one, Video)]
    layouts: dict[int, tuple[ImageLayout | VideoLayout, int]] = {}  # by the place among all media
    order = [one for row in media for one in row]
    if pictures:
        found = adapter.layouts(inputs, [(one.height, one.width) for one in pictures], processor)
        firsts = adapter.first_tokens(inputs["input_ids"], found) if videos else _in_a_row(media, found)
        numbers = [number for number, one in enumerate(order) if isinstance(one, Image.Image)]
        layouts |= dict(zip(numbers, zip(found, firsts, strict=True), strict=True))
    if videos:
        of_videos = adapter.video_layouts(inputs, [one.size for one in videos], processor)
        firsts = adapter.first_tokens(inputs["input_ids"], of_videos)
        numbers = [number for number, one in enumerate(order) if isinstance(one, Video)]
        layouts |= dict(zip(numbers, zip(of_videos, firsts, strict=True), strict=True))
    left = iter(range(len(order)))
    return [[Placed(one, *layouts[next(left)]) for one in row] for row in media]


def _in_a_row(media: Sequence[Sequence[Medium]], layouts: Sequence[ImageLayout]) -> list[int]:
    """First tokens of pictures that follow each other within their rows."""
    left, firsts = iter(layouts), []
    for row in media:
        first = 0
        for _ in row:
            firsts.append(first)
            first += next(left).n_tokens
    return firsts


def evidence_of_row(
    rows: Rows,
    number: int,
    placed: Sequence[Placed],
    question: str,
    constants: Constants,
    query: int | Sequence[int] = 0,
) -> list[Found]:
    """The evidence of every picture and video of one row of the batch, from a captured row or the mean of several."""
    shown, found = constants._asdict(), list[Found]()
    for medium, layout, first in placed:
        if isinstance(medium, Video):
            assert isinstance(layout, VideoLayout)
            found.append(video_evidence_of(rows, layout, medium, question, query, number, first, **shown))
        else:
            assert isinstance(layout, ImageLayout)
            found += evidence_of_one(rows, number, [layout], [medium], question, query, [first], **shown)
    return found
