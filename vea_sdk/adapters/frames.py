"""How the frames of a video became tokens: each step of time is a picture of its own, shown by one or more frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from vea_sdk.adapters.canvas import Canvas
from vea_sdk.adapters.geometry import ImageLayout
from vea_sdk.adapters.options import video_option, video_size_option
from vea_sdk.errors import GeometryError

VideoSize = tuple[int, tuple[int, int]]
"""(number of frames, (height, width) of each in pixels)."""


@dataclass(frozen=True, eq=False)
class VideoLayout:
    """How one video became tokens: a sequence of time steps.

    ``steps``: one ImageLayout per step, over the pixels of a frame, its tokens counted from the step's first.
    ``frames``: the frames that each step shows, by number. Frames of one step share its tokens.
    ``first_tokens``: where each step's tokens begin among the video's tokens (0 … n_tokens − 1).
    ``n_tokens``: the video's tokens in the prompt, those included that belong to no step (a line end).

    When a step was is told by the video: ``video.seconds[frames[i][0]]``. Raises GeometryError when the parts
    contradict each other.
    """

    steps: tuple[ImageLayout, ...]
    frames: tuple[tuple[int, ...], ...]
    first_tokens: tuple[int, ...]
    n_tokens: int

    def __post_init__(self) -> None:
        if not self.steps or not len(self.steps) == len(self.frames) == len(self.first_tokens):
            raise GeometryError(
                f"A video needs frames and a first token for every step; got {len(self.steps)} steps, "
                f"{len(self.frames)} groups of frames and {len(self.first_tokens)} first tokens."
            )
        shown = [frame for group in self.frames for frame in group]
        if not all(self.frames) or shown != list(range(len(shown))):
            raise GeometryError(f"The steps must show every frame once, in order; got {self.frames}.")
        end = 0
        for first, step in zip(self.first_tokens, self.steps, strict=True):
            if first < end:
                raise GeometryError(f"A step begins at token {first}, but the one before it ends at {end}.")
            end = first + step.n_tokens
        if end > self.n_tokens:
            raise GeometryError(f"The steps need {end} tokens, but the video has {self.n_tokens}.")

    @classmethod
    def of(cls, steps: Sequence[ImageLayout], n_frames: int, frames_per_step: int = 1, beyond: int = 0) -> VideoLayout:
        """Steps one after the other, then ``beyond`` tokens that show nothing. The last step may show fewer frames."""
        groups = [
            tuple(range(first, min(first + frames_per_step, n_frames))) for first in range(0, n_frames, frames_per_step)
        ]
        firsts = [0]
        for step in steps:
            firsts.append(firsts[-1] + step.n_tokens)
        return cls(tuple(steps), tuple(groups), tuple(firsts[:-1]), firsts[-1] + beyond)

    @property
    def frame_size(self) -> tuple[int, int]:
        """(height, width) of a frame in pixels."""
        return self.steps[0].original_size

    def __str__(self) -> str:
        shared = max(map(len, self.frames))
        each = "" if shared == 1 else f" of {shared} frames"
        return f"{len(self.steps)} steps{each}, each {self.steps[0]}; {self.n_tokens} tokens in all"


def merged_patches(
    original_size: tuple[int, int], patch_grid: tuple[int, int], patch_size: int, merge_size: int
) -> ImageLayout:
    """A whole picture resized to ``patch_grid`` (rows, cols) patches, merge_size² of which make one token."""
    rows, cols = patch_grid
    canvas = Canvas.of(original_size).resized(rows * patch_size, cols * patch_size)
    return patched(original_size, canvas, patch_size * merge_size)


def patched(original_size: tuple[int, int], canvas: Canvas, side: int) -> ImageLayout:
    """A canvas cut into tokens of ``side`` × ``side`` pixels."""
    tokens = canvas.patches(side, side)
    return ImageLayout(original_size, canvas.size, canvas.region, tokens.token_index.size, (tokens,))


def frame_by_frame(
    video_sizes: Sequence[VideoSize], step: Callable[[tuple[int, int]], ImageLayout], beyond: int = 0
) -> list[VideoLayout]:
    """Every frame a step of its own, laid out by its (height, width); ``beyond``: tokens after a video's last step."""
    return [VideoLayout.of([step(size)] * n_frames, n_frames, beyond=beyond) for n_frames, size in video_sizes]


def frame_canvas(size: tuple[int, int], processor: Any) -> Canvas:
    """A frame resized, and its middle cut out, as the video processor says."""
    canvas, to = Canvas.of(size), video_size_option(processor, "size")
    if video_option(processor, "do_resize") and ("shortest_edge" in to or "height" in to):
        canvas = canvas.resized_to(to)
    if video_option(processor, "do_center_crop"):
        crop = video_size_option(processor, "crop_size")
        canvas = canvas.center_cropped(crop["height"], crop["width"])
    return canvas
