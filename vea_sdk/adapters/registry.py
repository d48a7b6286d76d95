"""Which adapter serves which architecture."""

from __future__ import annotations

import warnings
from functools import cache

from torch import nn

from vea_sdk.adapters import support
from vea_sdk.adapters.base import Adapter, model_type
from vea_sdk.adapters.modules import unwrap
from vea_sdk.errors import InvalidInputError, UnsupportedModelError, UnverifiedModelWarning

ENTRY_POINT_GROUP = "vea_sdk.adapters"

_adapters: dict[str, type[Adapter]] = {}


def register(cls: type[Adapter]) -> type[Adapter]:
    """Let ``find`` return ``cls`` for each of its ``model_types``; also usable as a class decorator.

    Raises InvalidInputError when ``cls`` names no model type, or one that another class serves.
    """
    _load_lineages()
    return _add(cls)


def _add(cls: type[Adapter]) -> type[Adapter]:
    if not (isinstance(cls, type) and issubclass(cls, Adapter)):
        raise InvalidInputError(f"register() takes a subclass of vea_sdk.adapters.Adapter, not {cls!r}.")
    if not cls.model_types:
        raise InvalidInputError(
            f"{cls.__name__}.model_types is empty. Name the config.model_type values that it serves."
        )
    for name in cls.model_types:
        if (other := _adapters.get(name, cls)) is not cls:
            raise InvalidInputError(
                f"{other.__name__} already serves model type {name!r}, so {cls.__name__} cannot. Name other "
                "model_types, or pass your adapter where it is used (adapter=)."
            )
    _adapters.update(dict.fromkeys(cls.model_types, cls))
    return cls


def families() -> dict[str, type[Adapter]]:
    """Every model type served, with its adapter class: built-in, registered, and from installed packages."""
    _load_lineages()
    _load_entry_points()
    return dict(sorted(_adapters.items()))


def find(model: nn.Module) -> Adapter:
    """The adapter of a model: the registered one, else the generic one where the configuration names an image token.

    Warns (UnverifiedModelWarning) when this release of the package was not tested on the architecture. Raises
    UnsupportedModelError for a model that tells nothing about its image tokens.
    """
    from vea_sdk.adapters.generic import GenericAdapter

    served = families()
    name = model_type(model)
    if name in served:
        return served[name](model)
    if name and GenericAdapter.matches(unwrap(model)):
        if not support.verified(name):
            warnings.warn(support.unverified(name), UnverifiedModelWarning, stacklevel=2)
        return GenericAdapter(model)
    what = f"model type {name!r}" if name else f"{type(model).__name__} (it has no config.model_type)"
    for attribute in ("pretrained_model", "module", "model"):  # of a value head, of a wrapper of somebody's own
        if name is None and model_type(getattr(model, attribute, model)) in served:
            raise UnsupportedModelError(
                f"{type(model).__name__} wraps a model that is served: pass .{attribute} of it."
            )
    raise UnsupportedModelError(
        f"No adapter serves {what}. `vea doctor --families` lists those that are served. Subclass "
        "vea_sdk.adapters.Adapter and register it, or capture with image_positions=."
    )


@cache
def _load_lineages() -> None:
    from vea_sdk.adapters.lineages import ADAPTERS

    for cls in ADAPTERS:
        _add(cls)


@cache
def _load_entry_points() -> None:
    from importlib.metadata import entry_points  # here, because it is slow to import and rarely needed

    for entry_point in entry_points(group=ENTRY_POINT_GROUP):
        try:
            register(entry_point.load())
        except Exception as error:  # a broken package must not take the other architectures down with it
            warnings.warn(f"The adapter {entry_point.name} ({entry_point.value}) was not loaded: {error}", stacklevel=3)
