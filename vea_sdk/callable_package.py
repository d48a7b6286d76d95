"""Packages that bear the name of their main function: ``vea_sdk.capture(model)`` beside ``vea_sdk.capture.layers``."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any


class CallablePackage(ModuleType):
    """A package that is its main function, too: an attribute for whoever imports, patches or configures by a dotted
    name, a function for whoever calls.

    A package makes a class of its own, which type checkers read: ``__call__ = staticmethod(function)``, and what else
    it holds. :meth:`serve` then puts the class in the place of the module's.
    """

    __call__: Callable[..., Any]

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(type(self).__call__)

    def __reduce__(self) -> tuple[Callable[[str], ModuleType], tuple[str]]:
        """Copies and pickles are the package itself, as those of functions are the function."""
        return import_module, (self.__name__,)

    @classmethod
    def serve(cls, name: str) -> None:
        """Make the package of this name, which is being imported, one of this class."""
        sys.modules[name].__class__ = cls
