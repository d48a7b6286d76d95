"""What every reader checks in a row of a data set, whatever it was stored in."""

from __future__ import annotations

import json
import os
import reprlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from PIL import Image

from vea_sdk.errors import ImageError, InvalidInputError
from vea_sdk.evidence.images import load_image
from vea_sdk.grounding.samples import Box, BoxUnit, check_unit, edges_of

BoxFormat = Literal["xyxy", "xywh"]

_quoted = reprlib.Repr()  # what a file holds may be long, or nested too deeply for repr()
_quoted.maxstring = _quoted.maxlong = _quoted.maxother = 120


def json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every line of a file as (``file, line n``, its object); blank lines are passed over.

    Raises InvalidInputError when the file cannot be read, or a line is no JSON object.
    """
    for number, line in enumerate(text_of(path).split("\n"), 1):
        where = f"{path}, line {number}"
        if not line.strip():
            continue
        row = parsed(line, where)
        if not isinstance(row, dict):
            raise InvalidInputError(f"{where} holds a JSON {type(row).__name__}, not an object with fields.")
        yield where, row


def parsed(text: str, where: str) -> Any:
    """The value of a JSON text."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise InvalidInputError(f"{where} is no JSON of a data set: its brackets are nested too deeply.") from error
    except ValueError as error:
        raise InvalidInputError(f"{where} is no JSON: {error}") from error


def text_of(path: Path) -> str:
    """The text of a file; a pipe or a device is refused, which would be waited for."""
    try:
        if path.exists() and not path.is_file():
            raise InvalidInputError(f"{path} cannot be read: it is no file.")
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{path} cannot be read: {error}") from error


def picture(row: Mapping[str, Any], name: str, where: str, root: Path, outside: bool) -> Path:
    """A field that is a picture's path below ``root``; :func:`open_below` sees whether links lead out of it."""
    path = root / text(row, name, where)
    if not outside and not Path(os.path.normpath(path.absolute())).is_relative_to(os.path.normpath(root.absolute())):
        raise InvalidInputError(f"{where}: {_outside(path, root)}")
    return path


def open_below(path: Path, root: Path | None, max_pixels: int) -> Image.Image:
    """Open a picture that lies below ``root``, links followed; None for anywhere."""
    try:
        below = root is None or path.resolve().is_relative_to(root.resolve())
    except (OSError, ValueError, RuntimeError) as error:  # a name that is too long or holds a NUL, links in a circle
        raise ImageError(f"{_quoted.repr(str(path))} cannot be opened: {error}") from error
    if not below:
        raise ImageError(_outside(path, root))
    return load_image(path, max_pixels)


def _outside(path: Path, root: Path | None) -> str:
    return (
        f"the picture {_quoted.repr(str(path))} lies outside of {root}, and a data set opens no other files unasked. "
        "Where you trust it, read it with outside=True (--outside)."
    )


def text(row: Mapping[str, Any], name: str, where: str, default: str | None = None) -> str:
    """A field that is text; a whole number counts as its digits."""
    value = row.get(name, default)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or (default is None and not value.strip()):
        raise InvalidInputError(f"{where}: {name!r} must be text; got {_quoted.repr(value)}.")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidInputError(
            f"{where}: {name!r} holds half a letter (a lone surrogate); got {value!r:.120}."
        ) from error
    return value


def texts(row: Mapping[str, Any], name: str, where: str) -> tuple[str, ...]:
    """A field that is one text or a list of them; absent means none."""
    value = row.get(name)
    listed = [] if value is None else value if isinstance(value, list | tuple) else [value]
    return tuple(text({name: item}, name, where) for item in listed)


def boxes(
    row: Mapping[str, Any], name: str, where: str, unit: BoxUnit = "pixels", box_format: BoxFormat = "xyxy"
) -> tuple[Box, ...]:
    """A field that is a list of (x0, y0, x1, y1), or one of them; absent means none.

    Args:
        row, name, where: the field, and what errors call its place.
        unit: what the numbers count in.
        box_format: "xywh" where the last two are width and height.
    """
    value = row.get(name)
    if value is None:
        return ()
    single = isinstance(value, list | tuple) and value and not isinstance(value[0], list | tuple)
    try:
        found = tuple(edges_of(item) for item in ([value] if single else value))
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidInputError(
            f"{where}: {name!r} must be a list of boxes [x0, y0, x1, y1], all numbers; got {_quoted.repr(value)}."
        ) from error
    if box_format == "xywh":
        found = tuple((x, y, x + width, y + height) for x, y, width, height in found)
    return tuple(check_unit(box, unit, where) for box in found)


def check_options(unit: str, box_format: str = "xyxy") -> None:
    """Refuse what boxes cannot be."""
    if unit not in get_args(BoxUnit):
        raise InvalidInputError(f'boxes={unit!r} is unknown. Choose "pixels" or "relative".')
    if box_format not in get_args(BoxFormat):
        raise InvalidInputError(f'box_format={box_format!r} is unknown. Choose "xyxy" or "xywh".')


def named(name: str, unit: BoxUnit) -> str:
    """A data set's name for results, which those of other boxes must not continue."""
    return name if unit == "pixels" else f"{name}, boxes relative"
