"""Conversations with videos → what a model is fed, every frame as it was given.

Processors like to sample frames of their own choice and to guess when they were. Here they get the frames as arrays,
are told to drop none, and are told the time of each: on a clock that ticks once a millisecond, so that any time is a
whole number of ticks, however unevenly the frames lie.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from vea_sdk.errors import UnsupportedModelError
from vea_sdk.evidence.videos import Video

TICKS = 1000
"""Of the clock, per second."""

_STEP_LENGTH = "video_second_per_grid"


def with_frames(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The same turns with arrays [frames, H, W, 3] in the places of loaded videos, as chat templates take them."""
    return [
        {**message}
        if isinstance(message["content"], str)
        else {
            **message,
            "content": [
                {**part, "video": part["video"].pixels} if part["type"] == "video" else part
                for part in message["content"]
            ],
        }
        for message in messages
    ]


def video_options(processor: Any, videos: Sequence[Video]) -> dict[str, Any]:
    """Options of the processor's call, so that it takes these videos, of all rows in order, frame by frame.

    Raises UnsupportedModelError where it takes none.
    """
    if getattr(processor, "video_processor", None) is None:
        raise UnsupportedModelError(
            f"this {type(processor).__name__} takes no videos. Give their frames as pictures, or where the model does "
            "take videos, load its processor with AutoProcessor and torchvision installed."
        )
    options: dict[str, Any] = {
        "video_metadata": [_metadata(video) for video in videos],
        "do_sample_frames": False,
        "return_metadata": True,  # some write the times into the prompt only where they are asked to return them
    }
    if getattr(processor, "videos_kwargs", {}).get("do_resize") is False:
        options["do_resize"] = True  # it expects frames of a fitting size, and can make them fit
    return options


def finish(inputs: Any, processor: Any, videos: Sequence[Video]) -> None:
    """What the processor returned, made ready for the model in place: without the metadata, which no model takes, and
    with the true length of a step where the processor assumed one frame rate for all videos."""
    inputs.pop("video_metadata", None)
    if _STEP_LENGTH in inputs:
        together = processor.video_processor.temporal_patch_size
        inputs[_STEP_LENGTH] = torch.tensor([together * video.interval for video in videos])


def _metadata(video: Video) -> dict[str, Any]:
    n_frames, (height, width) = video.size
    length = max(1, round(n_frames * video.interval * TICKS))
    return {
        "total_num_frames": length,
        "fps": float(TICKS),
        "frames_indices": [round(second * TICKS) for second in video.seconds],
        "duration": length / TICKS,
        "height": height,
        "width": width,
    }
