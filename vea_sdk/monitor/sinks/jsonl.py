"""Records to a file of JSON lines that rotates by size."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vea_sdk.errors import InvalidInputError
from vea_sdk.monitor.record import Record

try:
    import fcntl
except ImportError:  # Windows: neither these locks nor the renaming of an open file
    fcntl = None  # type: ignore[assignment]


class JsonLinesSink:
    """Appends one line per record to ``path``; a full file becomes ``path.1``, that one ``path.2``, and so on.

    The file is opened, locked and closed for each record. So several processes, forked ones among them, share one
    file, somebody else may move it away (logrotate), and there is nothing to flush. Rotation renames
    (``os.replace``) and never copies. A line that does not fit on the disk is taken back whole, and the error raised.

    A file that holds what was asked or said (``content=True``) is for its owner alone (0600), from before the first
    such line; others keep the permissions they have.

    Args:
        path: the file; its folder must exist.
        max_bytes: size above which a line goes to a new file; a longer line has a file for itself.
        keep: how many rotated files stay; the oldest is overwritten.
        fsync: wait until the disk has each line, to survive a power cut.

    Raises:
        InvalidInputError: an option out of range, a path that cannot be written, or a system without POSIX file locks.
    """

    def __init__(
        self, path: str | os.PathLike[str], max_bytes: int = 64 * 2**20, keep: int = 5, *, fsync: bool = False
    ) -> None:
        if max_bytes < 1 or keep < 1:
            raise InvalidInputError(f"max_bytes={max_bytes} and keep={keep} must be at least 1.")
        if fcntl is None:
            raise InvalidInputError("JsonLinesSink needs the file locks of POSIX (fcntl): use a CallbackSink here.")
        self.path = Path(path)
        self._max_bytes = max_bytes
        self._keep = keep
        self._fsync = fsync
        try:
            with self._locked():
                pass
        except OSError as error:
            raise InvalidInputError(f"{str(path)!r} cannot be written: {error}. Its folder must exist.") from error

    def write(self, record: Record) -> None:
        """Append one line.

        Raises:
            OSError: when the disk is full or the folder is gone; the file is as before then.
            ValueError, TypeError: ``content`` that JSON cannot hold.
        """
        line = json.dumps(record.to_dict(), allow_nan=False, separators=(",", ":")).encode() + b"\n"
        while True:
            with self._locked(0o644 if record.content is None else 0o600) as file:
                found = os.fstat(file)
                size = found.st_size
                if size and size + len(line) > self._max_bytes:
                    self._rotate()
                    continue
                if record.content is not None and stat.S_ISREG(found.st_mode) and found.st_mode & 0o077:
                    os.fchmod(file, 0o600)
                self._append(file, size, line)
                return

    def close(self) -> None:
        """Nothing is held open between records."""

    @contextmanager
    def _locked(self, mode: int = 0o644) -> Iterator[int]:
        """The file that bears the name once the lock is ours: another process may have rotated while we waited."""
        while True:
            file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, mode)
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
                if _same_file(file, self.path):
                    yield file
                    return
            finally:
                os.close(file)

    def _append(self, file: int, size: int, line: bytes) -> None:
        if size and os.pread(file, 1, size - 1) != b"\n":
            line = b"\n" + line  # what a power cut or another program left stays a line of its own
        try:
            left = line
            while left:
                left = left[os.write(file, left) :]
            if self._fsync:
                os.fsync(file)
        except BaseException:
            with suppress(OSError):  # a device that is no file
                os.ftruncate(file, size)
            raise

    def _rotate(self) -> None:
        """Move each file one number up, from the first gap down, so that nothing goes that has a place."""
        numbered = [self.path, *(Path(f"{self.path}.{i}") for i in range(1, self._keep + 1))]
        free = next((i for i, one in enumerate(numbered) if not one.exists()), self._keep)
        for i in range(free, 0, -1):
            numbered[i - 1].replace(numbered[i])
        if self._fsync:
            folder = os.open(self.path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


def _same_file(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False
