"""Videos → frames and times, against files that PyAV wrote and against what was put in."""

from __future__ import annotations

import io
import struct
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image

from vea_sdk.errors import ImageError, InvalidInputError, VeaError
from vea_sdk.evidence.videos import Video, load_video


def level(number: int) -> int:
    return 20 + 8 * number


def frame(number: int, size: tuple[int, int] = (32, 48)) -> Image.Image:
    """A frame that says its number by its brightness; its left half is dark."""
    pixels = np.full((*size, 3), level(number), np.uint8)
    pixels[:, : size[1] // 2] = 0
    return Image.fromarray(pixels)


def number_of(image: Image.Image) -> int:
    return round((float(np.asarray(image)[4:-4, -8:-4].mean()) - 20) / 8)


def written(path: Path, count: int = 24, rate: int = 8, **options: Any) -> Path:
    with av.open(str(path), "w", **options) as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 48, 32, "yuv420p", 2_000_000
        for number in range(count):
            for packet in stream.encode(av.VideoFrame.from_image(frame(number))):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    return path


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return written(tmp_path / "clip.mp4")


def test_a_file_is_sampled_evenly_from_first_to_last(clip: Path) -> None:
    video = load_video(clip, most_frames=5)
    expected = np.linspace(0, 23, 5).round().astype(int).tolist()
    assert [number_of(one) for one in video.frames] == expected
    np.testing.assert_allclose(video.seconds, [number / 8 for number in expected], atol=1e-6)


def test_a_short_file_is_taken_whole(clip: Path) -> None:
    video = load_video(str(clip))
    assert [number_of(one) for one in video.frames] == list(range(24))
    assert video.interval == pytest.approx(1 / 8)
    assert repr(video) == "Video(24 frames of 48x32 pixels, 0 to 2.875 s)"


@pytest.mark.parametrize(("fps", "expected"), [(2, [0, 4, 8, 12, 16, 20]), (0.5, [0, 16]), (100, list(range(24)))])
def test_a_file_at_a_rate(clip: Path, fps: float, expected: list[int]) -> None:
    video = load_video(clip, fps=fps)
    assert [number_of(one) for one in video.frames] == expected


def test_a_rate_gives_way_to_the_most_frames(clip: Path) -> None:
    assert [number_of(one) for one in load_video(clip, fps=8, most_frames=2).frames] == [0, 23]


def test_bytes_and_open_files(clip: Path) -> None:
    data = clip.read_bytes()
    for source in (data, io.BytesIO(data), clip.as_uri()):
        assert load_video(source, most_frames=3).size == (3, (32, 48))


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_rotated_recordings_are_upright(clip: Path, turn: int) -> None:
    """The matrix of an MP4's track header (ISO 14496-12) turns the picture clockwise; written here by hand."""
    cosine, sine = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[turn]
    data = bytearray(clip.read_bytes())
    identity = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    at = data.index(identity, data.index(b"tkhd"))
    turned = [cosine << 16, sine << 16, 0, -sine << 16, cosine << 16, 0, 0, 0, 1 << 30]
    data[at : at + len(identity)] = struct.pack(">9i", *turned)
    shown = np.asarray(load_video(bytes(data), most_frames=1).frames[0]).astype(int)
    true = np.rot90(np.asarray(frame(0)), -turn // 90).astype(int)
    assert shown.shape == true.shape
    assert np.abs(shown - true).mean() < 6


def test_frames_and_arrays(tmp_path: Path) -> None:
    frame(1).save(tmp_path / "one.png")
    mixed = load_video([frame(0), tmp_path / "one.png", np.asarray(frame(2))])
    assert mixed.seconds == (0.0, 1.0, 2.0)
    pixels = np.stack([np.asarray(frame(number)) for number in range(3)])
    np.testing.assert_array_equal(mixed.pixels, pixels)
    for source in (pixels, torch.from_numpy(pixels)):
        np.testing.assert_array_equal(load_video(source, seconds=[0, 0.25, 4]).pixels, pixels)
    assert load_video(pixels, fps=4).seconds == (0.0, 0.25, 0.5)
    assert load_video(mixed) is mixed
    assert len(load_video([frame(0)] * 100).frames) == 100


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ([], {}, "without frames"),
        (np.zeros((0, 8, 8, 3), np.uint8), {}, "without frames"),
        ([frame(0), frame(1, (32, 40))], {}, "frame 1 32x40"),
        ([frame(0), frame(1)], {"seconds": [0.0]}, "1 seconds for 2 frames"),
        ([frame(0), frame(1)], {"seconds": [1.0, 1.0]}, "does not come after"),
        ([frame(0), frame(1)], {"seconds": [2.0, 1.0]}, "does not come after"),
        ([frame(0)], {"seconds": [float("nan")]}, "is no time"),
        ([frame(0)], {"seconds": [-1.0]}, "is no time"),
        ([frame(0)], {"seconds": [0.0], "fps": 1}, "Give one of them"),
        ([frame(0)], {"fps": 0}, "fps=0 must be above 0"),
        ([frame(0)], {"fps": -2}, "fps=-2"),
        ([frame(0)], {"most_frames": 0}, "most_frames=0"),
        (np.zeros((8, 8, 3), np.uint8), {}, "is no video"),
        (7, {}, "A int is no video"),
        ("nothing.mp4", {}, "There is no file 'nothing.mp4'"),
        ([frame(0)], {"max_pixels": 10}, "above the cap"),
    ],
)
def test_bad_videos(source: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        load_video(source, **options)


def test_bad_files(clip: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("no video " * 100)
    with pytest.raises(ImageError, match=r"text\.mp4.*cannot be read as a video"):
        load_video(text)
    with pytest.raises(ImageError, match=r"clip\.mp4.*above the cap"):
        load_video(clip, max_pixels=100)
    with pytest.raises(InvalidInputError, match="a video file says when"):
        load_video(clip, seconds=[0])
    sound = tmp_path / "sound.wav"
    with av.open(str(sound), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        block = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        block.sample_rate = 8000
        for packet in [*stream.encode(block), *stream.encode(None)]:
            container.mux(packet)
    with pytest.raises(ImageError, match=r"sound\.wav.*holds no video"):
        load_video(sound)


def test_a_cut_file_gives_what_it_holds(tmp_path: Path) -> None:
    whole = written(tmp_path / "clip.mkv")
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    video = load_video(cut)
    assert 2 < len(video.frames) < 24
    assert [number_of(one) for one in video.frames] == list(range(len(video.frames)))


def test_without_pyav(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(VeaError, match=r"pip install 'vea-sdk\[video\]'"):
        load_video(clip)
    assert len(load_video([frame(0)]).frames) == 1


def test_a_video_says_what_is_wrong_with_it() -> None:
    with pytest.raises(ImageError):
        Video((), ())
