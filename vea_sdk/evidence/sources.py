"""Where a picture's bytes come from: a file, an address, memory."""

from __future__ import annotations

import base64
import binascii
import http.client
import os
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import IO, Any

from vea_sdk._version import __version__
from vea_sdk.errors import ImageError

Bytes = bytes | bytearray | memoryview

MOST_BYTES = 200 * 2**20
"""Of a picture that is fetched."""

TIMEOUT = 30.0
"""Seconds to wait for a server."""

_URL_SAFE = bytes.maketrans(b"-_", b"+/")  # the other alphabet of base64, which may also go without padding


def content_of(source: Any, fetch: bool) -> tuple[str, Path | IO[bytes] | bytes]:
    """What errors call a source, and what Pillow opens: a path, an open file, or the bytes.

    Raises ImageError where nothing can be had.
    """
    if isinstance(source, os.PathLike):
        return _file(Path(source))
    if isinstance(source, str):
        return _address(source, fetch)
    content = _read(source) if hasattr(source, "read") else source
    if isinstance(content, Bytes):
        content = bytes(content)
        return f"the picture of {len(content)} bytes", content
    raise ImageError(
        f"A {type(source).__name__} is no picture. Pass a path, a PIL picture, an array or tensor [H, W, 3], a file's "
        "bytes, or a data: URL."
    )


def address_of(text: str) -> str:
    """How an error quotes an address: a picture may be inside."""
    return repr(text if len(text) <= 120 else f"{text[:60]}…{text[-20:]}")


def reason(error: Exception) -> str:
    """What went wrong, without the path that an error of the system repeats, however long."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def _read(file: Any) -> bytes:
    """All of an open file from its start, as Pillow reads it; whoever just wrote it stands at its end."""
    try:
        if not (hasattr(file, "seekable") and file.seekable()):
            content = file.read()
        else:
            place = file.tell()
            file.seek(0)
            content = file.read()
            file.seek(place)
    except (OSError, ValueError) as error:  # closed, or open for writing alone
        raise ImageError(f"{address_of(repr(file))} cannot be read: {reason(error)}") from error
    if not isinstance(content, bytes):
        raise ImageError(f"a file that reads {type(content).__name__} is no picture. Open it in binary mode.")
    return content


def _address(text: str, fetch: bool) -> tuple[str, Path | bytes]:
    name, lower = address_of(text), text[:10].lower()
    if lower.startswith("data:"):
        return name, _data(text, name)
    if lower.startswith("file:"):
        try:
            parts = urllib.parse.urlsplit(text)
        except ValueError as error:
            raise ImageError(f"{name} is no file: URL: {error}. Write file:///path.") from error
        if parts.netloc not in ("", "localhost"):
            raise ImageError(f"{name} names a file on another machine. Copy it here, or write file:///path.")
        return _file(Path(urllib.request.url2pathname(parts.path)))
    if lower.startswith(("http://", "https://")):
        if not fetch:
            raise ImageError(f"{name} is an address, and nothing is fetched unasked. Pass fetch=True, or the picture.")
        return name, _fetched(text, name)
    if len(text) > 4096:
        raise ImageError(f"{name} is too long for a path. A picture in base64 is given as data:image/png;base64,…")
    return _file(Path(text))


def _file(path: Path) -> tuple[str, Path]:
    name = address_of(str(path))
    try:
        exists, is_file = path.exists(), path.is_file()
    except (OSError, ValueError) as error:  # a name that is too long, or holds a NUL
        raise ImageError(f"{name} cannot be opened: {reason(error)}") from error
    if not exists:
        raise ImageError(f"There is no file {name}.")
    if not is_file:  # a pipe or a device would be waited for
        raise ImageError(f"{name} cannot be read as a picture: it is no file.")
    return name, path


def _data(text: str, name: str) -> bytes:
    header, comma, payload = text.partition(",")
    if not comma:
        raise ImageError(f"{name} is no data: URL: it has no comma before its data.")
    content = urllib.parse.unquote_to_bytes(payload)
    if not header.lower().rstrip().endswith(";base64"):
        return content
    content = b"".join(content.split()).rstrip(b"=").translate(_URL_SAFE)
    try:
        return base64.b64decode(content + b"=" * (-len(content) % 4), validate=True)
    except binascii.Error as error:
        raise ImageError(f"{name} is no data: URL: {error}.") from error


def _fetched(address: str, name: str) -> bytes:
    opener = urllib.request.build_opener(_HttpOnly)
    # Some servers refuse whoever does not say who asks. Spaces and letters beyond ASCII are encoded, as browsers do.
    quoted = urllib.parse.quote(address, safe="%/:?#[]@!$&'()*+,;=~")
    try:
        request = urllib.request.Request(quoted, headers={"User-Agent": f"vea-sdk/{__version__}"})
        with opener.open(request, timeout=TIMEOUT) as answer:
            header = answer.headers.get("Content-Length") or ""
            announced = int(header) if header.isdecimal() else 0
            content: bytes = answer.read(MOST_BYTES + 1) if announced <= MOST_BYTES else b""
    except (OSError, ValueError, http.client.HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        raise ImageError(f"{name} could not be fetched: {error}. Download it and pass the file.") from error
    if max(announced, len(content)) > MOST_BYTES:
        raise ImageError(f"{name} has more than {MOST_BYTES} bytes. Download it and pass the file.")
    if len(content) < announced:
        raise ImageError(f"{name} could not be fetched: {len(content)} of {announced} bytes came. Try again.")
    return content


class _HttpOnly(urllib.request.HTTPRedirectHandler):
    """Follows redirects to http and https alone: a server must not point at a file here."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if not newurl.lower().startswith(("http://", "https://")):
            raise urllib.error.URLError(f"it redirects to {address_of(newurl)}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)
