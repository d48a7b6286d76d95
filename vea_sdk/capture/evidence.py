"""From captured rows to the evidence of each picture."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import index
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from vea_sdk.adapters import ImageLayout
from vea_sdk.errors import CaptureError, InvalidInputError

if TYPE_CHECKING:
    from PIL import Image

    from vea_sdk.capture.session import Session
    from vea_sdk.evidence import Evidence

FIGURES = ("image_mass", "peak", "entropy", "mean", "rapt_image", "rapt_text")
"""Row statistics that ``Evidence.stats`` holds, [layers] each, over all pictures of the prompt."""


@dataclass(frozen=True, eq=False)
class Rows:
    """What a session captured, without the session: it outlives the model's inputs.

    ``attention``: [layers, batch, queries, image tokens]. ``statistics``: [figures, layers, batch, queries], in the
    order of ``FIGURES``. ``layers``: their numbers. ``heads``: [layers, heads, batch, queries, image tokens], or None.
    """

    attention: Tensor
    statistics: Tensor
    layers: tuple[int, ...]
    heads: Tensor | None = None

    @classmethod
    def of(cls, session: Session) -> Rows:
        stats = session.stats
        figures = torch.stack([getattr(stats, name) for name in FIGURES])
        return cls(session.attention, figures, session.layers, session.heads if session.per_head else None)

    @property
    def count(self) -> int:
        """Queries whose rows are there."""
        return int(self.attention.shape[2])


def evidence_of(
    rows: Rows,
    layouts: Sequence[ImageLayout],
    pictures: Sequence[Sequence[Image.Image]],
    questions: Sequence[str | None],
    query: int | Sequence[int] = 0,
    **shown: Any,
) -> list[list[Evidence]]:
    """For every row of the batch, one Evidence per picture.

    Args:
        rows: what was captured.
        layouts: of all pictures, row after row of the batch.
        pictures: of each row of the batch.
        questions: of each.
        query: whose row it is; of several, their mean.
        **shown: λ, σ and α of the evidence.
    """
    return [
        evidence_of_one(rows, number, layouts[before : before + len(own)], own, question, query, **shown)
        for number, (own, question, before) in enumerate(zip(pictures, questions, _before(pictures), strict=True))
    ]


def evidence_of_one(
    rows: Rows,
    number: int,
    layouts: Sequence[ImageLayout],
    pictures: Sequence[Image.Image],
    question: str | None,
    query: int | Sequence[int] = 0,
    first_tokens: Sequence[int] | None = None,
    **shown: Any,
) -> list[Evidence]:
    """The same of one row of the batch, ``number``, from its own layouts and pictures.

    ``first_tokens``: where each picture's tokens begin among the row's image tokens, from ``Adapter.first_tokens``; by
    default one picture follows the other, which holds unless the prompt shows a video, too.
    """
    from vea_sdk.evidence import Evidence

    chosen = _numbers(query)
    if not chosen or not all(0 <= one < rows.count for one in chosen):
        raise InvalidInputError(f"query={query!r} must name rows that were captured: 0 to {rows.count - 1}.")
    attention = rows.attention[:, number, chosen].mean(1).cpu().numpy()
    figures = rows.statistics[:, :, number, chosen].mean(2).cpu().numpy()
    heads = None if rows.heads is None else rows.heads[:, :, number, chosen].mean(2).cpu().numpy()
    stats = {name: part for name, part in zip(FIGURES, figures, strict=True) if not np.isnan(part).any()}
    if first_tokens is None:
        first_tokens = [0, *accumulate(layout.n_tokens for layout in layouts)][: len(layouts)]
    found = []
    for layout, picture, first in zip(layouts, pictures, first_tokens, strict=True):
        tokens = slice(first, first + layout.n_tokens)
        part = attention[:, tokens]
        options: dict[str, Any] = {"head_scores": None if heads is None else heads[..., tokens]}
        found.append(
            Evidence(picture, question, part.mean(0), layout, rows.layers, part, stats=dict(stats), **options, **shown)
        )
    return found


def _numbers(query: Any) -> list[int]:
    """Row numbers as plain integers, also those of numpy and torch; none where they are no whole numbers."""
    try:
        return [index(one) for one in (query if isinstance(query, Iterable) else [query]) if not isinstance(one, bool)]
    except TypeError:
        return []


def _before(pictures: Sequence[Sequence[Any]]) -> list[int]:
    """Pictures of the rows before each."""
    return [sum(len(own) for own in pictures[:number]) for number in range(len(pictures))]


def sequence_number(row: Any, batch: int) -> int:
    """Which of ``batch`` sequences is meant, as a plain integer. Raises InvalidInputError where it is none of them."""
    numbers = _numbers(row)
    if len(numbers) != 1 or not 0 <= numbers[0] < batch:
        raise InvalidInputError(f"row={row!r} is none of the {batch} sequences of the batch, counted from 0.")
    return numbers[0]


def of_session(
    session: Session, images: Any, processor: Any, query: int | Sequence[int], row: int, **fields: Any
) -> Evidence | list[Evidence]:
    """See :meth:`Session.evidence`."""
    from vea_sdk.evidence import is_single, load_image
    from vea_sdk.evidence.constants import Constants

    Constants(**{name: fields[name] for name in Constants._fields}).checked()
    rows, prompt = Rows.of(session), session.prompt
    row = sequence_number(row, rows.attention.shape[1])
    ids = prompt.inputs.get("input_ids")
    if not isinstance(ids, Tensor):
        raise CaptureError(
            "the prompt was fed as embeddings, so how its pictures became tokens is not known. Feed input_ids."
        )
    prompts = len(ids)
    if prompts > 1 and (is_single(images) or len(images) != prompts):
        given = 1 if is_single(images) else len(images)
        raise InvalidInputError(
            f"images holds {given} items for a batch of {prompts} prompts. Give one for each: its picture, or a list "
            "of its pictures."
        )
    nested = not is_single(images) and len(images) == 1 and not is_single(images[0])
    items = list(images) if prompts > 1 or nested else [images]
    pictures = [[load_image(one) for one in ([item] if is_single(item) else item)] for item in items]
    sizes = [(picture.height, picture.width) for own in pictures for picture in own]
    try:
        layouts = prompt.adapter.layouts(prompt.inputs, sizes, processor)
    except AttributeError as error:
        raise InvalidInputError(
            f"processor={type(processor).__name__} does not say how its pictures become tokens: {error}. Give the "
            "processor that made the inputs."
        ) from error
    # generate() may return several sequences for each prompt, one after the other.
    at = row * prompts // rows.attention.shape[1]
    before = sum(len(own) for own in pictures[:at])
    own_layouts = layouts[before : before + len(pictures[at])]
    first_tokens = None
    if prompt.adapter.shows_video(ids):  # its tokens stand among those of the pictures
        first_tokens = prompt.adapter.first_tokens(ids, layouts)[before : before + len(own_layouts)]
    question = fields.pop("question")
    found = evidence_of_one(rows, row, own_layouts, pictures[at], question, query, first_tokens, **fields)
    return found[0] if is_single(items[at]) else found
