"""Videos of any kind → frames, RGB and upright, each with its time."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from vea_sdk.errors import ImageError, InvalidInputError, VeaError
from vea_sdk.evidence.images import MAX_PIXELS, ImageSource, load_image
from vea_sdk.evidence.sources import Bytes, content_of

MOST_FRAMES = 32
"""Of a video file, unless ``most_frames`` says otherwise."""


@dataclass(frozen=True, eq=False)
class Video:
    """Frames and when they were.

    ``frames``: RGB pictures of one size, as :func:`load_image` makes them. ``seconds``: the time of each, increasing.

    Raises ImageError for frames that are none or differ in size, InvalidInputError for times that do not fit them.
    """

    frames: tuple[Image.Image, ...]
    seconds: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "frames", tuple(self.frames))
        object.__setattr__(self, "seconds", tuple(map(float, self.seconds)))
        if not self.frames:
            raise ImageError("A video without frames shows nothing. Give at least one.")
        width, height = self.frames[0].size
        for number, frame in enumerate(self.frames):
            if frame.size != (width, height):
                raise ImageError(
                    f"The frames of a video have one size; frame 0 has {height}x{width} pixels (height x width), frame "
                    f"{number} {frame.height}x{frame.width}. Resize them, or give them as pictures."
                )
        if len(self.seconds) != len(self.frames):
            raise InvalidInputError(f"{len(self.seconds)} seconds for {len(self.frames)} frames: give one to each.")
        for number, now in enumerate(self.seconds):
            if not math.isfinite(now) or now < 0:
                raise InvalidInputError(f"seconds[{number}]={now} is no time. Count seconds from 0.")
            if number and now <= self.seconds[number - 1]:
                raise InvalidInputError(
                    f"seconds[{number}]={now} does not come after seconds[{number - 1}]={self.seconds[number - 1]}. "
                    "Give the frames in their order."
                )

    @property
    def size(self) -> tuple[int, tuple[int, int]]:
        """(number of frames, (height, width)), as ``Adapter.video_layouts`` wants it."""
        return len(self.frames), (self.frames[0].height, self.frames[0].width)

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """[frames, height, width, 3] uint8."""
        return np.stack([np.asarray(frame) for frame in self.frames])

    @property
    def interval(self) -> float:
        """Mean time from frame to frame in seconds; 1 for a single frame."""
        first, last = self.seconds[0], self.seconds[-1]
        return (last - first) / (len(self.frames) - 1) if len(self.frames) > 1 else 1.0

    def __repr__(self) -> str:
        (height, width), last = self.size[1], self.seconds[-1]
        return f"Video({len(self.frames)} frames of {width}x{height} pixels, {self.seconds[0]:g} to {last:g} s)"


VideoSource = Video | str | Path | Bytes | IO[bytes] | Sequence[ImageSource] | NDArray[Any] | Tensor


def load_video(
    source: VideoSource,
    *,
    seconds: Sequence[float] | None = None,
    fps: float | None = None,
    most_frames: int = MOST_FRAMES,
    max_pixels: int = MAX_PIXELS,
    fetch: bool = False,
) -> Video:
    """The frames of a video and their times.

    A file is decoded by PyAV (``pip install 'vea-sdk[video]'``) and sampled: ``fps`` frames per second, or where that
    would be more than ``most_frames`` (or no ``fps`` is given), that many, evenly from the first frame to the last.
    Times count from the file's first frame. Rotated recordings are put upright.

    Frames that are given are all kept: they lie at ``seconds``, else 1 / ``fps`` apart, else a second apart.

    Args:
        source: a path, a ``file://`` URL, an http(s) address with ``fetch=True``, or a file's bytes; a list of
            pictures, as :func:`load_image` takes them; an array or tensor [frames, H, W, 3].
        seconds: the time of each frame that is given.
        fps: frames per second, see above.
        most_frames: of a file.
        max_pixels: the largest height · width of a frame.
        fetch: whether an address is fetched.

    Raises:
        ImageError: no frames, frames that cannot be decoded (with the file's name), or frames of different size.
        InvalidInputError: ``seconds``, ``fps`` or ``most_frames`` that cannot be.
    """
    if fps is not None and (isinstance(fps, bool) or not math.isfinite(fps) or fps <= 0):
        raise InvalidInputError(f"fps={fps!r} must be above 0: frames per second.")
    if isinstance(most_frames, bool) or not isinstance(most_frames, int) or most_frames < 1:
        raise InvalidInputError(f"most_frames={most_frames!r} must be a whole number, at least 1.")
    if isinstance(source, Video):
        return source
    if isinstance(source, str | Path | Bytes) or hasattr(source, "read"):
        if seconds is not None:
            raise InvalidInputError("seconds= is for frames that are given; a video file says when its frames are.")
        return _from_file(source, fps, most_frames, max_pixels, fetch)
    if isinstance(source, np.ndarray | Tensor) and source.ndim != 4:
        raise ImageError(f"An array of shape {tuple(source.shape)} is no video. Pass [frames, H, W, 3].")
    if not isinstance(source, np.ndarray | Tensor | Sequence):  # a generator has no length to check
        raise ImageError(
            f"A {type(source).__name__} is no video. Pass a file, a list of frames, or an array [frames, H, W, 3]."
        )
    count = len(source)
    if seconds is not None and len(seconds) != count:
        raise InvalidInputError(f"{len(seconds)} seconds for {count} frames: give one to each.")
    if seconds is not None and fps is not None:
        raise InvalidInputError("seconds= and fps= both say when the frames are. Give one of them.")
    times = [number / (fps or 1.0) for number in range(count)] if seconds is None else seconds
    frames: Any = source
    return Video(tuple(load_image(frame, max_pixels=max_pixels, fetch=fetch) for frame in frames), tuple(times))


def _from_file(source: Any, fps: float | None, most_frames: int, max_pixels: int, fetch: bool) -> Video:
    name, content = content_of(source, fetch)
    data = content if isinstance(content, bytes | Path) else content.read()
    times = _frame_times(name, data)
    wanted = _sampled(times, fps, most_frames)
    frames: list[Image.Image] = []
    seconds: list[float] = []
    with _opened(name, data) as (container, stream):
        if stream.width * stream.height > max_pixels:
            raise ImageError(
                f"{name}: frames of {stream.height}x{stream.width} pixels (height x width) are above the cap of "
                f"{max_pixels}. Shrink them, or pass max_pixels={stream.width * stream.height}."
            )
        for frame in container.decode(stream):
            now = None if frame.pts is None else float(frame.pts * frame.time_base) - times[0]
            if now is None or now < wanted[len(frames)] - 1e-6 or (seconds and now <= seconds[-1]):
                continue
            image = frame.to_image()
            # PyAV counts counterclockwise, as Pillow does.
            frames.append(image.rotate(frame.rotation, expand=True) if frame.rotation % 360 else image)
            seconds.append(now)
            if len(frames) == len(wanted):
                break
    if not frames:
        raise ImageError(f"{name} holds no frame that can be decoded. Convert it to another format.")
    return Video(tuple(frames), tuple(seconds))


def _frame_times(name: str, data: bytes | Path) -> list[float]:
    """When the frames of a file are shown, in order, without decoding them."""
    with _opened(name, data) as (container, stream):
        stamps = [packet.pts if packet.pts is not None else packet.dts for packet in container.demux(stream)]
        times = sorted({float(stamp * stream.time_base) for stamp in stamps if stamp is not None})
    if not times:
        raise ImageError(f"{name} holds no frames. Give a video, or its frames as pictures.")
    return times


def _sampled(times: Sequence[float], fps: float | None, most_frames: int) -> list[float]:
    """Which of the times are wanted, counted from the first."""
    offsets = np.asarray(times) - times[0]
    count = min(len(times), most_frames)
    if fps is not None:
        steady = np.arange(0.0, offsets[-1] + 1e-6, 1.0 / fps)
        if len(steady) <= count:
            return [float(offsets[at]) for at in np.unique(np.searchsorted(offsets, steady - 1e-6))]
    return [float(offsets[at]) for at in np.unique(np.linspace(0, len(times) - 1, count).round().astype(int))]


@contextmanager
def _opened(name: str, data: bytes | Path) -> Iterator[tuple[Any, Any]]:
    """A file's container and its first video stream; what its decoder raises becomes an ImageError."""
    try:
        import av
    except ImportError as error:
        raise VeaError("Video files need PyAV: pip install 'vea-sdk[video]', or give the frames as pictures") from error
    try:
        with av.open(str(data) if isinstance(data, Path) else io.BytesIO(data)) as container:
            if not container.streams.video:
                raise ImageError(f"{name} holds no video, only {len(container.streams)} other streams.")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            yield container, stream
    except (av.FFmpegError, ValueError) as error:
        if isinstance(error, VeaError):
            raise
        raise ImageError(f"{name} cannot be read as a video: {error}") from error
