"""From plain values, such as JSON has, to a dataclass: every value is held against its field's declared type."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from vea_sdk.errors import InvalidInputError

_LARGEST = 2**53  # beyond it floats skip whole numbers, and nothing that is counted or measured comes near

_Reader = Callable[[Any, str], Any]  # of a value, and of where it stands, for the error


@cache
def reader(declared: Any) -> _Reader:
    """What reads a value of a declared type: lists become tuples, whole numbers floats where those are declared.

    Numbers are finite, at most 2⁵³, and whole ones at least 0; keys that a dataclass does not know are left out.

    The reader raises InvalidInputError for a value of another type, and names its place.
    """
    origin, inner = get_origin(declared), get_args(declared)
    if declared is Any:
        return lambda value, where: value
    if declared is float:
        return _number
    if declared is int:
        return _whole
    if is_dataclass(declared):
        return _dataclass(declared)
    if origin in (Union, UnionType):
        [kind] = [one for one in inner if one is not NoneType]
        read = reader(kind)
        return lambda value, where: None if value is None else read(value, where)
    if origin is tuple:
        return _all_alike(reader(inner[0])) if inner[-1] is Ellipsis else _each(tuple(map(reader, inner)))
    if origin is Mapping:
        return _mapping(reader(inner[1]))
    return _plain(declared)


def short(value: Any) -> str:
    """A value as an error shows it."""
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:60]}…"


def _wrong(value: Any, where: str, right: str) -> InvalidInputError:
    return InvalidInputError(f"{where} is {short(value)}, where {right} should be.")


def _number(value: Any, where: str) -> float:
    if not isinstance(value, float | int) or isinstance(value, bool) or not -_LARGEST <= value <= _LARGEST:
        raise _wrong(value, where, "a number")  # NaN, too, which no comparison holds for
    return float(value)


def _whole(value: Any, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _LARGEST:
        raise _wrong(value, where, "a whole number")
    return value


def _plain(declared: type) -> _Reader:
    right = {str: "a text", bool: "true or false"}[declared]

    def read(value: Any, where: str) -> Any:
        if not isinstance(value, declared):
            raise _wrong(value, where, right)
        return value

    return read


def _all_alike(read: _Reader) -> _Reader:
    def read_all(value: Any, where: str) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple):
            raise _wrong(value, where, "a list")
        return tuple([read(one, where) for one in value])

    return read_all


def _each(readers: tuple[_Reader, ...]) -> _Reader:
    def read_each(value: Any, where: str) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple) or len(value) != len(readers):
            raise _wrong(value, where, f"a list of {len(readers)}")
        return tuple([read(one, where) for read, one in zip(readers, value, strict=True)])

    return read_each


def _mapping(read: _Reader) -> _Reader:
    def read_mapping(value: Any, where: str) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise _wrong(value, where, "an object")
        return {name: read(one, f"{where}.{name}") for name, one in value.items()}

    return read_mapping


def _dataclass(declared: Any) -> _Reader:
    hints = get_type_hints(declared)
    readers = {one.name: reader(hints[one.name]) for one in fields(declared)}
    needed = {one.name for one in fields(declared) if one.default is MISSING and one.default_factory is MISSING}

    def read_dataclass(value: Any, where: str) -> Any:
        if not isinstance(value, Mapping):
            raise _wrong(value, where, "an object")
        if missing := sorted(needed - value.keys()):
            raise InvalidInputError(f"{where} has no {' and no '.join(missing)}.")
        return declared(
            **{name: read(value[name], f"{where}.{name}") for name, read in readers.items() if name in value}
        )

    return read_dataclass
