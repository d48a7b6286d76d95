"""Files that are never seen half written."""

from __future__ import annotations

import secrets
from contextlib import suppress
from pathlib import Path


def write_whole(path: str | Path, content: str | bytes) -> None:
    """Write a file in one step: whoever reads it finds the old content or the new one, never a part.

    A file that is there keeps its permissions. The new content is first written beside it, under a name that nobody
    can know before and that must not be taken, so that no link put there in advance leads the writing elsewhere. Text
    is written in UTF-8; lone surrogates, which that has not, as the escapes that JSON has for them.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    beside = path.with_name(f".{secrets.token_hex(16)}.part")
    file = beside.open("xb")
    try:
        with file:
            with suppress(FileNotFoundError):
                beside.chmod(path.stat().st_mode & 0o777)  # before the content: it may be for few eyes
            file.write(data)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
