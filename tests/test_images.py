"""Pictures of every mode, and files that are none."""

from __future__ import annotations

import base64
import http.server
import io
import os
import struct
import subprocess
import threading
import urllib.parse
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import EpsImagePlugin, Image

from vea_sdk.errors import ImageError, InvalidInputError
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


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_an_upright_picture_is_not_turned_again(kind: str) -> None:
    tag, buffer = Image.Exif(), io.BytesIO()
    tag[0x112] = 6
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 40, 3), dtype=np.uint8)).save(buffer, kind, exif=tag)
    once = load_image(Image.open(buffer))
    assert once.size == (20, 40)
    assert np.array_equal(once, load_image(once))


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


# --- from anywhere --------------------------------------------------------------------------------------------------


def encoded(image: Image.Image | None = None, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    (image or Image.fromarray(COLOURS)).save(buffer, kind, **options)
    return buffer.getvalue()


PNG = encoded()


def test_bytes_and_open_files(tmp_path: Path) -> None:
    written = io.BytesIO()
    Image.fromarray(COLOURS).save(written, "PNG")
    assert written.tell() == len(PNG)  # at its end, as writing leaves it
    for source in (PNG, bytearray(PNG), memoryview(PNG), io.BytesIO(PNG), written):
        np.testing.assert_array_equal(pixels(source), COLOURS)
    assert written.tell() == len(PNG)
    path = tmp_path / "picture.png"
    path.write_bytes(PNG)
    with path.open("rb") as file:
        np.testing.assert_array_equal(pixels(file), COLOURS)
    with pytest.raises(ImageError, match=r"cannot be read.*closed"):
        load_image(file)
    with path.open() as text, pytest.raises(ImageError, match=r"cannot be read|binary mode"):
        load_image(text)  # type: ignore[arg-type]
    reader, writer = os.pipe()  # cannot seek
    os.write(writer, PNG)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        np.testing.assert_array_equal(pixels(pipe), COLOURS)


@pytest.mark.parametrize(
    "address",
    [
        "data:image/png;base64," + base64.b64encode(PNG).decode(),
        "data:image/png;base64," + base64.encodebytes(PNG).decode(),  # with line ends
        "data:image/png;base64," + base64.urlsafe_b64encode(PNG).decode().rstrip("="),
        "DATA:;charset=x;BASE64," + urllib.parse.quote(base64.b64encode(PNG), safe=""),
        "data:image/png," + urllib.parse.quote(PNG),
    ],
)
def test_data_addresses(address: str) -> None:
    np.testing.assert_array_equal(pixels(address), COLOURS)


def test_file_addresses(tmp_path: Path) -> None:
    path = tmp_path / "a picture, 50% #1.png"
    path.write_bytes(PNG)
    assert "%20" in path.as_uri()
    for source in (path, str(path), path.as_uri(), path.as_uri().replace("file://", "file://localhost")):
        np.testing.assert_array_equal(pixels(source), COLOURS)
    for address, message in (("file://elsewhere/a.png", "another machine"), ("file://[a.png", "file:///path")):
        with pytest.raises(ImageError, match=message):
            load_image(address)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_tensors(dtype: torch.dtype) -> None:
    values = torch.from_numpy(COLOURS).to(dtype) / (255 if dtype.is_floating_point else 1)
    last = values.to(dtype).requires_grad_(dtype.is_floating_point)
    atol = {torch.bfloat16: 1, torch.float16: 1}.get(dtype, 0)  # 8 and 11 bits of precision
    for source in (last, last.permute(2, 0, 1), last.permute(2, 0, 1).contiguous()):
        found = pixels(source)
        assert found.shape == COLOURS.shape
        np.testing.assert_allclose(found.astype(int), COLOURS.astype(int), atol=atol)
    np.testing.assert_array_equal(pixels(torch.from_numpy(RAMP)), grey(RAMP))
    with pytest.raises(ImageError, match=r"\(1, 6, 9, 3\)"):
        load_image(torch.from_numpy(COLOURS)[None])


def test_arrays_with_alpha_and_pil_pictures_of_every_mode() -> None:
    opaque = np.dstack([COLOURS, np.full(COLOURS.shape[:2], 255, np.uint8)])
    np.testing.assert_array_equal(pixels(opaque), COLOURS)
    np.testing.assert_array_equal(pixels(opaque / 255), COLOURS)
    expected = np.asarray(Image.fromarray(COLOURS).convert("L"))
    for mode in ("L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "I;16", "I", "F"):
        start = Image.fromarray(COLOURS).convert("L")
        if mode in ("I;16", "I", "F"):
            start = Image.fromarray(
                expected.astype({"I;16": "u2", "I": "i4", "F": "f4"}[mode]) * (1 if mode == "F" else 257)
            )
            assert start.mode == mode
        else:
            start = start.convert("LA").convert("RGBA").convert("PA") if mode == "PA" else start.convert(mode)
        np.testing.assert_array_equal(pixels(start), grey(expected), err_msg=mode)


# --- over http ------------------------------------------------------------------------------------------------------


class Answers(http.server.BaseHTTPRequestHandler):
    """What a server may say, by path; and who asked."""

    agents: ClassVar[list[str]] = []
    target = ""

    def do_GET(self) -> None:
        self.agents.append(self.headers["User-Agent"])
        if self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header(
                "Location", {"file": self.target, "ftp": "ftp://127.0.0.1/a", "http": "/a%20b.png"}[self.path[4:]]
            )
            self.end_headers()
            return
        if self.path == "/nonsense":
            self.wfile.write(b"no http at all\r\n\r\n")
            return
        bodies = {"/a%20b.png": PNG, "/%C3%A4.png": PNG, "/page": b"<html>", "/cut": PNG, "/quiet": PNG}
        self.send_response(200 if self.path in bodies else 404)
        body = bodies.get(self.path, b"nothing here")
        if self.path != "/quiet":  # which does not say how much comes
            self.send_header("Content-Length", str(len(body) + (self.path == "/cut")))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_pictures_are_fetched_when_asked(server: str) -> None:
    Answers.agents.clear()
    for path in ("/a%20b.png", "/a b.png", "/ä.png", "/to/http", "/a%20b.png#part", "/quiet"):
        np.testing.assert_array_equal(np.asarray(load_image(server + path, fetch=True)), COLOURS)
    assert {agent.split("/")[0] for agent in Answers.agents} == {"vea-sdk"}
    Answers.agents.clear()
    with pytest.raises(ImageError, match="fetch=True"):
        load_image(f"{server}/a%20b.png")
    assert Answers.agents == []


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/absent", "404"),
        ("/to/file", r"could not be fetched.*file:"),
        ("/to/ftp", r"redirects to 'ftp:"),
        ("/page", r"none of PNG, JPEG"),
        ("/cut", "could not be fetched"),
        ("/nonsense", "could not be fetched"),
    ],
)
def test_what_a_server_must_not_do(
    server: str, path: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret.png").write_bytes(PNG)
    monkeypatch.setattr(Answers, "target", (tmp_path / "secret.png").as_uri())
    with pytest.raises(ImageError, match=message):
        load_image(server + path, fetch=True)


@pytest.mark.parametrize("path", ["/a%20b.png", "/quiet"])
def test_an_answer_may_be_too_large(server: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MOST_BYTES", len(PNG))
    assert load_image(server + path, fetch=True).size == (9, 6)
    monkeypatch.setattr(sources, "MOST_BYTES", len(PNG) - 1)
    with pytest.raises(ImageError, match=f"more than {len(PNG) - 1} bytes"):
        load_image(server + path, fetch=True)


@pytest.mark.parametrize("address", ["http://127.0.0.1:1/a.png", "http://[a.png", "https://", "http://a:port/b.png"])
def test_addresses_without_a_server(address: str) -> None:
    with pytest.raises(ImageError, match="could not be fetched"):
        load_image(address, fetch=True)


# --- what is no picture ---------------------------------------------------------------------------------------------


def test_postscript_starts_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def started(*_: Any, **__: Any) -> None:
        raise AssertionError("ghostscript was started")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", started)
    path = tmp_path / "picture.png"
    path.write_bytes(encoded(kind="EPS"))
    with Image.open(path) as opened, pytest.raises(AssertionError):
        opened.load()  # Pillow alone would start it
    for source in (path, path.read_bytes()):
        with pytest.raises(ImageError, match=r"none of PNG, JPEG.*Convert"):
            load_image(source)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("decoder"),
        struct.error("unpack"),
        TypeError("argument"),
        MemoryError(),
        subprocess.CalledProcessError(1, "gs"),
        KeyError("tag"),
        ZeroDivisionError("by zero"),
    ],
)
def test_whatever_a_decoder_raises_is_one_error(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a PIL picture that is decoded when it is used, and of a file's bytes."""
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "PNG")
    lazy = Image.open(buffer)

    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr(type(lazy), "load", fails)
    for source in (lazy, buffer.getvalue()):
        with pytest.raises(ImageError, match="cannot be read as a picture") as raised:
            load_image(source)
        assert raised.value.__cause__ is error


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_truncated_pictures(kind: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    whole = encoded(Image.fromarray(noise), kind)
    for share in (0.1, 0.5, 0.9):
        part = whole[: int(share * len(whole))]
        path = tmp_path / "part"
        path.write_bytes(part)
        for source in (part, path, io.BytesIO(part)):
            with pytest.raises(InvalidInputError):
                load_image(source)
        try:
            opened = Image.open(io.BytesIO(part))
        except OSError:
            continue
        with pytest.raises(InvalidInputError):
            load_image(opened)


def test_a_png_with_damaged_pixels_is_refused() -> None:
    """Pillow raises once, and gives what it has, black or noise, when it is asked again."""
    broken = bytearray(encoded(Image.fromarray(COLOURS)))
    broken[broken.index(b"IDAT") + 12] ^= 0xFF
    with Image.open(io.BytesIO(broken)) as opened, pytest.raises(OSError):  # noqa: PT011
        opened.load()
    for source in (bytes(broken), Image.open(io.BytesIO(broken))):
        with pytest.raises(ImageError, match="cannot be read as a picture"):
            load_image(source)


@pytest.mark.parametrize(
    ("kind", "value"), [(2, b"six\0"), (5, b"\xff" * 4), (9, struct.pack("<i", -6)), (99, b"\6\0\0\0")]
)
def test_a_malformed_orientation_is_passed_over(kind: int, value: bytes) -> None:
    """The tag as text, as a fraction beyond the end of the block, as a negative number, as nothing that EXIF knows."""
    entry = struct.pack("<HHI", 0x112, kind, 1) + value
    block = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 1) + entry + b"\0\0\0\0"
    expected = np.asarray(Image.open(io.BytesIO(encoded(kind="JPEG"))))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, about the block
        np.testing.assert_array_equal(pixels(encoded(kind="JPEG", exif=block)), expected)


def test_pipes_and_folders_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for source in (tmp_path / "pipe.png", tmp_path, str(tmp_path), (tmp_path / "pipe.png").as_uri()):
        with pytest.raises(ImageError, match="it is no file"):
            load_image(source)


@pytest.mark.parametrize(
    "source",
    [
        "data:image/png;base64," + "AAAA" * 50_000,
        "data:image/png;base64," + "A" * 200_001 + "!",
        "data:image/png;base64" + "A" * 200_000,
        "data:," + "%41" * 50_000,
        base64.b64encode(b"\x89PNG" * 50_000).decode(),
        base64.b64encode(b"\x89PNG" * 500).decode(),  # short enough for a path
        b"A" * 200_000,
    ],
)
def test_errors_do_not_repeat_the_picture(source: str | bytes) -> None:
    with pytest.raises(ImageError) as caught:
        load_image(source)
    assert len(str(caught.value)) <= 250
    assert "A" * 80 not in str(caught.value)
