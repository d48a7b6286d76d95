"""Records from a file of JSON lines while it is written and rotated."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from vea_sdk.errors import InvalidInputError
from vea_sdk.monitor.record import Record

KEPT = 100  # wrong lines that are remembered; all are counted


class Tail:
    """What :class:`~vea_sdk.monitor.sinks.JsonLinesSink` writes to ``path``, line by line, each once.

    A file that was rotated away is read to its end before the next one, also when several rotations came in between.
    A line that is no record is skipped, counted and named in ``wrong``. ``gaps`` counts the times at which rotation
    removed the file being read, so that files between it and the next one may have gone unread.

    Args:
        path: the file; it may come later.
        rotated: begin with the oldest of ``path.1``, ``path.2``, … instead of ``path`` itself.
    """

    def __init__(self, path: str | os.PathLike[str], rotated: bool = False) -> None:
        self.path = Path(path)
        self.wrong: deque[str] = deque(maxlen=KEPT)
        self.wrong_lines = 0
        self.gaps = 0
        self._rotated = rotated
        self._file: BinaryIO | None = None
        self._line = 0
        self._half = b""

    def poll(self) -> Iterator[Record]:
        """The records that were written since the last time."""
        while self._file is not None or self._open():
            yield from self._rest()
            if self._is(self.path):
                return
            yield from self._rest()  # what was written between the end and the rotation
            if not self._open():
                return

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _rest(self) -> Iterator[Record]:
        assert self._file is not None
        if os.fstat(self._file.fileno()).st_size < self._file.tell():  # somebody emptied it
            self._file.seek(0)
            self._line, self._half = 0, b""
        for line in self._file:
            self._half += line
            if line.endswith(b"\n"):
                whole, self._half = self._half, b""
                self._line += 1
                if whole.strip() and (record := self._parse(whole)) is not None:
                    yield record

    def _parse(self, line: bytes) -> Record | None:
        try:
            fields = json.loads(line)
            if not isinstance(fields, dict):
                raise InvalidInputError(f"a {type(fields).__name__} where an object should be.")
            return Record.from_dict(fields)
        except (ValueError, RecursionError) as error:  # InvalidInputError and what json raises are ValueErrors
            self._complain(str(error))
            return None

    def _complain(self, message: str) -> None:
        assert self._file is not None
        self.wrong_lines += 1
        self.wrong.append(f"{self._file.name}:{self._line}: {message}")

    def _open(self) -> bool:
        """Open the first file, or the one after the present one."""
        while (path := self._next()) is not None:
            try:
                file = path.open("rb")
            except FileNotFoundError:
                continue
            again = self._next()
            if again is None or not _same(again, file):  # rotated between the two looks
                file.close()
                continue
            if self._half:
                self._line += 1
                self._complain("the file ends within a line.")
            self.gaps += self._file is not None and not any(map(self._is, self._by_age()))
            self.close()
            self._file, self._line, self._half = file, 0, b""
            return True
        return False

    def _next(self) -> Path | None:
        """Which file follows the present one, wherever rotation has put the two by now."""
        files = self._by_age()
        if self._file is None:
            self._rotated = self._rotated or not files  # where nothing is yet, all that comes is new
            return next((path for path in files if self._rotated or path == self.path), None)
        for older, newer in zip(files, [*files[1:], None], strict=True):
            if self._is(older):
                return newer
        written = os.fstat(self._file.fileno()).st_mtime
        later = (path for path in files if path.stat().st_mtime >= written)
        # The clock may have been set back since: what bears the name now is newer than what is gone in any case.
        return next(later, self.path if self.path in files else None)

    def _is(self, path: Path) -> bool:
        return self._file is not None and _same(path, self._file)

    def _by_age(self) -> list[Path]:
        """``path.2``, ``path.1``, ``path``: those that exist, the oldest first."""
        files = [self.path] if self.path.exists() else []
        number = 1
        while (older := Path(f"{self.path}.{number}")).exists():
            files.insert(0, older)
            number += 1
        return files


def _same(path: Path, file: BinaryIO) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False
