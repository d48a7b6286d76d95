"""Pictures of every mode, and files that are none."""

from __future__ import annotations

import base64
import io
import os
import threading
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

from vea_sdk.errors import ImageError
from vea_sdk.evidence import load_image, sources

RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)
COLOURS = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


def pixels(source: object, **options: int) -> np.ndarray:
    image = load_image(source, **options)  # type: ignore[arg-type]
    assert image.mode == "RGB"
    return np.asarray(image)


def grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[..., None], 3, axis=2)


def test_files_pil_and_arrays_agree(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    Image.fromarray(COLOURS).save(path)
    for source in (path, str(path), Image.fromarray(COLOURS), COLOURS, COLOURS[:, ::-1][:, ::-1], COLOURS / 255):
        np.testing.assert_array_equal(pixels(source), COLOURS)


def test_the_result_is_a_new_picture() -> None:
    source = Image.fromarray(COLOURS)
    load_image(source).putpixel((0, 0), (1, 2, 3))
    np.testing.assert_array_equal(np.asarray(source), COLOURS)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    turns = {  # how the stored pixels must be turned to stand upright (EXIF 2.3, tag 274)
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a),
    }
    exif = Image.Exif()
    exif[274] = orientation
    path = tmp_path / "turned.png"
    Image.fromarray(COLOURS).save(path, exif=exif)
    np.testing.assert_array_equal(pixels(path), turns[orientation](COLOURS))


def test_sixteen_bits_are_scaled(tmp_path: Path) -> None:
    deep = RAMP.astype(np.uint16) * 257
    path = tmp_path / "deep.png"
    Image.fromarray(deep).save(path)
    with Image.open(path) as opened:
        assert opened.mode.startswith("I")
    for source in (path, deep, deep[..., None], Image.fromarray(deep), Image.fromarray(deep.astype(np.int32))):
        np.testing.assert_array_equal(pixels(source), grey(RAMP))
    tiff = tmp_path / "big-endian.tif"
    Image.frombytes("I;16B", (16, 16), deep.astype(">u2").tobytes()).save(tiff)
    np.testing.assert_array_equal(pixels(tiff), grey(RAMP))
    np.testing.assert_array_equal(pixels(COLOURS.astype(np.uint16) * 257), COLOURS)


def test_floats() -> None:
    np.testing.assert_array_equal(pixels(Image.fromarray(RAMP.astype(np.float32))), grey(RAMP))
    np.testing.assert_array_equal(pixels(Image.fromarray(RAMP.astype(np.float32) / 255)), grey(RAMP))
    np.testing.assert_array_equal(pixels(COLOURS.astype(np.float64)), COLOURS)


def test_cmyk_grey_and_one_bit() -> None:
    cmyk = Image.merge("CMYK", [Image.new("L", (3, 2), value) for value in (0, 255, 255, 0)])
    assert pixels(cmyk)[0, 0].tolist() == [255, 0, 0]
    np.testing.assert_array_equal(pixels(Image.fromarray(RAMP)), grey(RAMP))
    np.testing.assert_array_equal(pixels(RAMP[..., None]), grey(RAMP))
    bits = RAMP > 100
    expected = grey(bits.astype(np.uint8) * 255)
    np.testing.assert_array_equal(pixels(Image.fromarray(bits)), expected)
    np.testing.assert_array_equal(pixels(bits), expected)


def test_palette_with_and_without_transparency(tmp_path: Path) -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.putdata([0, 1])
    assert pixels(palette).tolist() == [[[10, 20, 30], [200, 100, 50]]]
    path = tmp_path / "palette.png"
    palette.save(path, transparency=1)
    assert pixels(path).tolist() == [[[10, 20, 30], [255, 255, 255]]]


def test_alpha_is_laid_on_white() -> None:
    alpha = np.array([[0, 51, 255]], dtype=np.uint8)
    colour = np.full((1, 3, 3), 100, dtype=np.uint8)
    expected = [255, 224, 100]  # α · 100 + (1 − α) · 255
    rgba = np.dstack([colour, alpha])
    la = np.dstack([colour[..., 0], alpha])
    for source in (rgba, la, Image.fromarray(rgba), Image.fromarray(la), Image.fromarray(rgba).convert("RGBa")):
        assert pixels(source)[0, :, 0].tolist() == pytest.approx(expected, abs=1)
    keyed = Image.fromarray(COLOURS)
    keyed.info["transparency"] = tuple(COLOURS[0, 0].tolist())
    assert pixels(keyed)[0, 0].tolist() == [255, 255, 255]


def test_an_animation_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "lime", "blue")]
    for name in ("moving.gif", "moving.png"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        assert (pixels(tmp_path / name) == [255, 0, 0]).all()


def test_too_large_is_refused_before_decoding(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    Image.fromarray(np.zeros((50, 60), dtype=np.uint8)).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:45])  # a header and no pixels: decoding would fail in another way
    with pytest.raises(ImageError, match=r"50x60.*cap of 2999.*max_pixels=3000"):
        load_image(path, max_pixels=2999)
    path.write_bytes(whole)
    assert load_image(path, max_pixels=3000).size == (60, 50)
    for source in (np.zeros((50, 60)), Image.new("L", (60, 50))):
        with pytest.raises(ImageError, match="50x60"):
            load_image(source, max_pixels=2999)


def test_beyond_pils_own_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "large.png"
    Image.new("L", (60, 50)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ImageError, match=r"3000 pixels.*MAX_IMAGE_PIXELS"):
        load_image(path)


@pytest.mark.parametrize("source", [np.zeros((0, 5, 3), np.uint8), np.zeros((4, 0)), Image.new("RGB", (0, 7))])
def test_empty(source: object) -> None:
    with pytest.raises(ImageError, match=r"0x5|4x0|7x0"):
        load_image(source)  # type: ignore[arg-type]


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"no file.*missing\.png"):
        load_image(tmp_path / "missing.png")
    with pytest.raises(ImageError, match="cannot be read as a picture"):
        load_image(tmp_path)
    text = tmp_path / "text.png"
    text.write_text("no picture")
    with pytest.raises(ImageError, match=r"text\.png.*cannot be read"):
        load_image(text)
    cut = tmp_path / "cut.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(cut)
    cut.write_bytes(cut.read_bytes()[:900])
    with pytest.raises(ImageError, match=r"cut\.jpg.*cannot be read"):
        load_image(cut)
    with pytest.raises(ImageError, match=r"address.*fetch=True"):
        load_image("https://example.org/cat.png")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (np.zeros((4, 4, 5), np.uint8), r"\(4, 4, 5\)"),
        (np.zeros(4, np.uint8), r"\(4,\)|4x0"),
        (np.zeros((4, 4), np.int64), "int64"),
        (np.zeros((4, 4), np.complex64), "complex64"),
        (np.full((4, 4), 256.0), "256"),
        (np.full((4, 4), -1.0), "-1"),
        (np.full((4, 4), np.nan), "nan"),
        (Image.fromarray(np.full((4, 4), 70000, dtype=np.int32)), "70000"),
        (b"bytes", "bytes"),
        (None, "NoneType"),
    ],
)
def test_unsupported_kinds(source: object, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        load_image(source)  # type: ignore[arg-type]


# --- from anywhere ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def png() -> bytes:
    file = io.BytesIO()
    Image.fromarray(COLOURS).save(file, "PNG")
    return file.getvalue()


def data_url(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode()


def test_bytes_open_files_and_urls(png: bytes, tmp_path: Path) -> None:
    read = io.BytesIO(png)
    read.read()  # to its end, as a checksum does
    path = tmp_path / "a picture, 100%.png"
    path.write_bytes(png)
    given = [png, bytearray(png), memoryview(png), io.BytesIO(png), read, data_url(png), path.as_uri()]
    given += ["data:image/png," + urllib.parse.quote_from_bytes(png), "DATA:;BASE64," + data_url(png).split(",")[1]]
    given += [path.as_uri().replace("file://", "file://localhost")]
    for source in given:
        np.testing.assert_array_equal(pixels(source), COLOURS)
    with path.open("rb") as file:
        np.testing.assert_array_equal(pixels(file), COLOURS)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bfloat16, torch.float64])
def test_tensors_channels_first_and_last(dtype: torch.dtype) -> None:
    values = torch.from_numpy(COLOURS.copy())
    if dtype.is_floating_point:
        values = values.to(dtype) if dtype == torch.bfloat16 else values.to(dtype) / 255
    expected = values.float().mul(1 if dtype in (torch.uint8, torch.bfloat16) else 255).round().numpy()
    for source in (values, values.permute(2, 0, 1), values.permute(2, 0, 1).contiguous(), values.requires_grad_(False)):
        np.testing.assert_array_equal(pixels(source), expected.astype(np.uint8))
    np.testing.assert_array_equal(pixels(values[..., 0]), grey(expected[..., 0].astype(np.uint8)))


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("data:image/png;base64", "no comma"),
        ("data:image/png;base64,####", "no data: URL"),
        ("data:text/plain,hello", "cannot be read as a picture"),
        ("file://elsewhere/a.png", "another machine"),
        ("file:///no/such/picture.png", "no file"),
        ("ftp://example.org/a.png", "no file"),
    ],
)
def test_urls_that_are_no_picture(url: str, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        load_image(url)


def test_errors_shorten_what_they_quote() -> None:
    for source in (
        data_url(b"no picture" * 10_000),
        "data:image/png;base64," + "?" * 100_000,
        "x" * 100_000,
        "/" + "y/" * 2000,
    ):
        with pytest.raises(ImageError) as caught:
            load_image(source)
        assert len(str(caught.value)) < 400


class Shelf(BaseHTTPRequestHandler):
    """Serves what ``shelf`` holds under its path: content, or where to look instead."""

    shelf: ClassVar[dict[str, bytes | str]] = {}

    def do_GET(self) -> None:
        found = self.shelf.get(self.path)
        if isinstance(found, str):
            self.send_response(302)
            self.send_header("Location", found)
            self.end_headers()
            return
        self.send_response(404 if found is None else 200)
        self.end_headers()
        self.wfile.write(found or b"")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(png: bytes, tmp_path: Path) -> Iterator[str]:
    (tmp_path / "secret.png").write_bytes(png)
    Shelf.shelf = {
        "/a.png": png,
        "/moved": "/a.png",
        "/inside": (tmp_path / "secret.png").as_uri(),
        "/away": "ftp://127.0.0.1/a.png",
        "/page": b"<html>",
    }
    with HTTPServer(("127.0.0.1", 0), Shelf) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_addresses_are_fetched_when_asked(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in ("/a.png", "/moved"):
        np.testing.assert_array_equal(np.asarray(load_image(server + path, fetch=True)), COLOURS)
        with pytest.raises(ImageError, match="fetch=True"):
            load_image(server + path)
    for path, message in (
        ("/none", "could not be fetched.*404"),
        ("/inside", "file:.*not allowed"),
        ("/away", "redirects to 'ftp:"),
        ("/page", "cannot be read as a picture"),
    ):
        with pytest.raises(ImageError, match=message):
            load_image(server + path, fetch=True)
    monkeypatch.setattr(sources, "MOST_BYTES", 20)
    with pytest.raises(ImageError, match="more than 20 bytes"):
        load_image(server + "/a.png", fetch=True)


def test_no_server() -> None:
    with HTTPServer(("127.0.0.1", 0), Shelf) as taken:
        port = taken.server_port
    with pytest.raises(ImageError, match="could not be fetched"):
        load_image(f"http://127.0.0.1:{port}/a.png", fetch=True)


# --- hostile files ----------------------------------------------------------------------------------------------------


def test_postscript_is_not_run(tmp_path: Path) -> None:
    """Pillow would start ghostscript for it, whatever the file is called."""
    path = tmp_path / "picture.png"
    Image.fromarray(COLOURS).save(path, "EPS")
    assert path.read_bytes().startswith(b"%!PS")
    with pytest.raises(ImageError, match="cannot be read as a picture"):
        load_image(path)


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", tmp_path, Path("/dev/zero")):
        with pytest.raises(ImageError, match="it is no file"):
            load_image(path)


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_files_cut_short(name: str) -> None:
    """Anywhere: they load as the whole picture, or are refused; no other error comes through."""
    values = np.random.default_rng(1).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(values).save(file, name)
    whole = file.getvalue()
    refused = 0
    for stop in np.linspace(1, len(whole) - 1, 40, dtype=int):
        try:
            assert load_image(whole[:stop]).size == (50, 40)
        except ImageError:
            refused += 1
    assert refused >= 30


def test_a_malformed_tag_beside_the_orientation() -> None:
    """Tag 282 (resolution) points beyond the file; the orientation, 6, is whole."""
    entries = [(274, 3, 1, (6).to_bytes(2, "little") + b"\0\0"), (282, 5, 1, (60_000).to_bytes(4, "little"))]
    block = b"II*\0" + (8).to_bytes(4, "little") + len(entries).to_bytes(2, "little")
    for tag, kind, count, value in entries:
        block += tag.to_bytes(2, "little") + kind.to_bytes(2, "little") + count.to_bytes(4, "little") + value
    file = io.BytesIO()
    Image.fromarray(COLOURS).save(file, "PNG", exif=b"Exif\0\0" + block + bytes(4))
    np.testing.assert_array_equal(pixels(file.getvalue()), np.rot90(COLOURS, -1))
