"""Results that survive: a file of JSON lines to which a run adds, and from which a later run goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from filelock import FileLock, Timeout

from vea_sdk.errors import InvalidInputError

_Row = dict[str, Any]


class Journal:
    """The first line says what the run is, every further one is a row with an ``id`` of its own.

    A row is on the disk when :meth:`add` returns, so that a killed process or a power cut loses what was not added and
    nothing else; half a last line is cut off when the file is opened again. One process at a time may have it open: a
    file ``.<name>.lock`` beside it, which stays, holds the lock. Without a path, rows stay in memory.

    Args:
        path: the file, made if absent, or None.
        run: everything the results depend on, ready for JSON.

    Raises:
        InvalidInputError: there can be no such file, it belongs to another run, a line of it is broken, an id comes
            twice, or another process has it open.
    """

    def __init__(self, path: str | Path | None, run: Mapping[str, Any]) -> None:
        self.rows: dict[str, _Row] = {}
        self._file: IO[bytes] | None = None
        if path is None:
            return
        self._path = Path(path)
        self._lock = FileLock(self._path.with_name(f".{self._path.name}.lock"), timeout=0, thread_local=False)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()  # the system lets go of it when a process dies
            self._file = self._path.open("a+b")
        except Timeout as error:
            raise InvalidInputError(f"{self._path} is being written by another process. Wait for it.") from error
        except OSError as error:
            self._lock.release()
            raise InvalidInputError(f"results cannot be kept in {self._path}: {error}") from error
        try:
            self._read(json.loads(json.dumps(run)))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
            self._file = None
            self._lock.release()

    def add(self, row: Mapping[str, Any]) -> None:
        """Keep a row, on the disk before this returns. What JSON changes (tuples) comes back as from the file."""
        line = json.dumps(row, ensure_ascii=False, allow_nan=False)
        self._keep(json.loads(line), "the new row")
        self._write(line)

    def _read(self, run: _Row) -> None:
        assert self._file is not None
        self._file.seek(0)
        content = self._file.read()
        whole = content[: content.rfind(b"\n") + 1]
        first = json.dumps({"run": run}, ensure_ascii=False, allow_nan=False)
        lines = self._parsed(whole)
        found = next(lines, None)
        if found is not None:
            self._compare(found[1].get("run"), run)
            for where, row in lines:
                self._keep(row, where)
        elif not _encoded(first).startswith(content):
            raise self._foreign()
        self._file.truncate(len(whole))
        if found is None:
            self._write(first)

    def _parsed(self, content: bytes) -> Iterator[tuple[str, _Row]]:
        for number, line in enumerate(content.split(b"\n")[:-1], 1):
            where = f"{self._path}, line {number}"
            try:
                row = json.loads(line)
            except ValueError as error:
                raise InvalidInputError(f"{where} is no JSON: {error}. Delete it to have it made again.") from error
            if not isinstance(row, dict) or (number > 1 and not isinstance(row.get("id"), str)):
                raise InvalidInputError(f"{where} is no row of results: {line[:80]!r}. Choose another file.")
            yield where, row

    def _compare(self, found: Any, run: _Row) -> None:
        if not isinstance(found, dict):
            raise self._foreign()
        differing = [name for name in sorted({*found, *run}) if found.get(name) != run.get(name)]
        if differing:
            said = "; ".join(f"{name} was {found.get(name)!r}, now {run.get(name)!r}" for name in differing)
            raise InvalidInputError(
                f"{self._path} holds results of another run: {said}. Choose another place, or delete the file."
            )

    def _foreign(self) -> InvalidInputError:
        return InvalidInputError(f"{self._path} holds no results of a run. Choose another file.")

    def _keep(self, row: _Row, where: str) -> None:
        if row["id"] in self.rows:
            raise InvalidInputError(f"{where}: the id {row['id']!r} is there already. Every sample needs its own.")
        self.rows[row["id"]] = row

    def _write(self, line: str) -> None:
        if self._file is not None:
            self._file.write(_encoded(line) + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())  # 0.2 ms on an SSD with ext4; a row stands for a model's answer


def _encoded(line: str) -> bytes:
    """JSON in UTF-8. A lone surrogate, as in names of files that are no UTF-8, is escaped, and read back as it was."""
    return line.encode("utf-8", "backslashreplace")
