"""From captured rows to the evidence of a video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from vea_sdk.adapters import VideoLayout
from vea_sdk.capture.evidence import Rows, evidence_of_one
from vea_sdk.errors import GeometryError

if TYPE_CHECKING:
    from vea_sdk.capture.session import Session
    from vea_sdk.evidence.video import VideoEvidence
    from vea_sdk.evidence.videos import Video


def video_evidence_of(
    captured: Session | Rows,
    layout: VideoLayout,
    video: Video,
    question: str | None,
    query: int | Sequence[int] = 0,
    row: int = 0,
    first_token: int = 0,
    **shown: Any,
) -> VideoEvidence:
    """One Evidence per step of a video, on the first of the frames that share the step's tokens.

    Args:
        captured: a session, or its ``Rows``.
        layout: how the video became tokens, from ``Adapter.video_layouts``.
        video: the frames that the processor was given, and their times.
        question: what was asked.
        query: whose row it is; of several, their mean.
        row: which sequence of the batch.
        first_token: where the video's tokens begin among the image tokens of that sequence, from
            ``Adapter.first_tokens``; 0 where nothing else is seen.
        **shown: λ, σ and α of the evidence.

    Raises:
        GeometryError: the layout is not this video's, or not of what was captured.
    """
    from vea_sdk.evidence.video import VideoEvidence

    rows = captured if isinstance(captured, Rows) else Rows.of(captured)
    n_frames, size = video.size
    if layout.frames[-1][-1] + 1 != n_frames or layout.frame_size != size:
        raise GeometryError(f"{video} is not the video of this layout: {layout}. Give the one that was laid out.")
    if first_token < 0 or first_token + layout.n_tokens > rows.attention.shape[-1]:
        raise GeometryError(
            f"the video has {layout.n_tokens} tokens from {first_token} on, the captured rows have "
            f"{rows.attention.shape[-1]} image tokens. Give first_token= from Adapter.first_tokens(), and the layout "
            "of the captured prompt."
        )
    tokens = torch.cat(
        [
            torch.arange(first, first + step.n_tokens) + first_token
            for first, step in zip(layout.first_tokens, layout.steps, strict=True)
        ]
    ).to(rows.attention.device)
    own = replace(
        rows,
        attention=rows.attention[..., tokens],
        heads=None if rows.heads is None else rows.heads[..., tokens],
    )
    firsts = [frames[0] for frames in layout.frames]
    pictures = [video.frames[number] for number in firsts]
    steps = evidence_of_one(own, row, layout.steps, pictures, question, query, **shown)
    return VideoEvidence(tuple(steps), tuple(video.seconds[number] for number in firsts), layout.frames)
