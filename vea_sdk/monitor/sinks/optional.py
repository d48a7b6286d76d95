"""Packages that only one sink needs."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from vea_sdk.errors import InvalidInputError


def needed(module: str, extra: str) -> Any:
    """Import ``module``, or say which extra brings it.

    Raises:
        InvalidInputError: when it is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise InvalidInputError(f"this sink needs {module}: pip install 'vea-sdk[{extra}]'") from error
