"""What every reader checks in a row of a data set, whatever it was stored in."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vea_sdk.errors import InvalidInputError
from vea_sdk.grounding.samples import Box
from vea_sdk.prompts import shortened


def json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every line of a file as (``file, line n``, its object); blank lines are passed over.

    Raises InvalidInputError when the file cannot be read, or a line is no JSON object.
    """
    for number, line in enumerate(text_of(path).split("\n"), 1):
        where = f"{path}, line {number}"
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:  # the latter of brackets without end
            raise InvalidInputError(f"{where} is no JSON: {error}") from error
        if not isinstance(row, dict):
            raise InvalidInputError(f"{where} holds a JSON {type(row).__name__}, not an object with fields.")
        yield where, row


def text_of(path: Path) -> str:
    """The text of a file."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{path} cannot be read: {error}") from error


def text(row: Mapping[str, Any], name: str, where: str, default: str | None = None) -> str:
    """A field that is text; a whole number counts as its digits."""
    value = row.get(name, default)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or (default is None and not value.strip()):
        raise InvalidInputError(f"{where}: {name!r} must be text; got {shortened(value)}.")
    return value


def picture(row: Mapping[str, Any], name: str, where: str, folder: Path, outside: bool) -> Path:
    """A field that names a picture in a folder. Data from elsewhere must not name other files of this machine, so what
    lies outside, by ``..``, an absolute path or a link, is refused unless ``outside``."""
    path = folder / text(row, name, where)
    try:
        inside = path.resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError) as error:  # a name with a NUL, links in a circle
        raise InvalidInputError(f"{where}: {name!r} is no path: {error}") from error
    if not (inside or outside):
        raise InvalidInputError(
            f"{where}: the picture {shortened(row[name])} lies outside of {folder}. If you trust the data, pass "
            "outside=True (--outside)."
        )
    return path


def texts(row: Mapping[str, Any], name: str, where: str) -> tuple[str, ...]:
    """A field that is one text or a list of them; absent means none."""
    value = row.get(name)
    listed = [] if value is None else value if isinstance(value, list | tuple) else [value]
    return tuple(text({name: item}, name, where) for item in listed)


def boxes(row: Mapping[str, Any], name: str, where: str) -> tuple[Box, ...]:
    """A field that is a list of (x0, y0, x1, y1), or one of them; absent means none."""
    value = row.get(name)
    if value is None:
        return ()
    single = isinstance(value, list | tuple) and value and not isinstance(value[0], list | tuple)
    try:
        return tuple(_box(item) for item in ([value] if single else value))
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidInputError(
            f"{where}: {name!r} must be a list of boxes [x0, y0, x1, y1] in pixels; got {shortened(value)}."
        ) from error


def _box(value: Any) -> Box:
    if any(isinstance(edge, bool) for edge in value):
        raise TypeError("true and false are no edges")
    x0, y0, x1, y1 = map(float, value)
    return x0, y0, x1, y1
