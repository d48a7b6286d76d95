"""Which layers to read: a list, all of them, a span of depth, or a stored profile."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

from vea_sdk import profiles
from vea_sdk.adapters import Adapter
from vea_sdk.errors import LayerError

LayerSelection = str | int | Sequence[int] | Sequence[float] | profiles.Profile


def resolve_layers(selection: LayerSelection, adapter: Adapter) -> tuple[int, ...]:
    """Turn a selection into ascending layer numbers that have softmax attention.

    ``"all"``: every such layer. ``(0.5, 1.0)``, two floats: those whose depth l/L lies in [0.5, 1.0). A list of
    integers: these, negative ones from the end. ``"profiled"``: the layers of the model's profile (see
    :func:`vea_sdk.profiles.find`), or the deeper half with a warning when it has none. A profile: its layers.

    Raises:
        LayerError: for an empty selection, a number out of range, a layer without softmax attention, or a profile of
            another model.
    """
    available = sorted(adapter.modules_by_layer())
    depth = adapter.n_layers
    if selection == "all":
        chosen = available
    elif selection == "profiled":
        chosen = _profiled(adapter, available)
    elif isinstance(selection, profiles.Profile):
        chosen = _of_profile(selection, adapter, available)
    elif isinstance(selection, str):
        raise LayerError(
            f"layers={selection!r} is not a selection. Give a list of layer numbers, a depth span such as (0.5, 1.0), "
            '"all" or "profiled".'
        )
    elif isinstance(selection, int):
        chosen = _listed([selection], available, depth)
    elif _is_span(selection):
        chosen = _span(selection, available, depth)
    else:
        chosen = _listed(selection, available, depth)
    if not chosen:
        raise LayerError(f"layers={selection!r} names no layer. The model has {depth}: 0 to {depth - 1}.")
    return tuple(chosen)


def _is_span(selection: object) -> bool:
    return isinstance(selection, tuple) and len(selection) == 2 and any(isinstance(end, float) for end in selection)


def _span(selection: Sequence[float], available: list[int], depth: int) -> list[int]:
    low, high = selection
    if not 0 <= low < high <= 1:
        raise LayerError(f"layers={selection!r}: a depth span runs from low to high with 0 <= low < high <= 1.")
    first, stop = math.ceil(low * depth), math.ceil(high * depth)
    return [layer for layer in available if first <= layer < stop]


def _listed(selection: Sequence[int] | Sequence[float], available: list[int], depth: int) -> list[int]:
    for layer in selection:
        if isinstance(layer, bool) or not hasattr(layer, "__index__"):
            raise LayerError(f"layers={selection!r}: {layer!r} is not a layer number.")
        if not -depth <= layer < depth:
            raise LayerError(f"layer {layer} is out of range: the model has {depth} layers, 0 to {depth - 1}.")
    chosen = sorted({int(layer) % depth for layer in selection})
    absent = [layer for layer in chosen if layer not in available]
    if absent:
        raise LayerError(
            f"layers {absent} have no softmax attention to read (they are linear, convolutional or state-space). "
            f"Choose among {available}."
        )
    return chosen


def _profiled(adapter: Adapter, available: list[int]) -> list[int]:
    profile = profiles.find(adapter.model)
    if profile is None:
        warnings.warn(
            "This model has no profile of its visual-grounding layers; the deeper half of its layers is used. Make one "
            f"with `vea profile --model {profiles.model_name(adapter.model)} --install`, or name the layers yourself "
            "with layers=[...] if you know them.",
            stacklevel=2,
        )
        return _span((0.5, 1.0), available, adapter.n_layers)
    if profile.reprofile_recommended:
        warnings.warn(
            f"The built-in profile of {profile.model} was made with an inexact box projection; its layers may not be "
            f"the best ones. Make your own with `vea profile --model {profile.model} --install`.",
            stacklevel=2,
        )
    return _of_profile(profile, adapter, available)


def _of_profile(profile: profiles.Profile, adapter: Adapter, available: list[int]) -> list[int]:
    depth = adapter.n_layers
    name = profiles.model_name(adapter.model)
    if profile.n_layers not in (None, depth):
        raise LayerError(
            f"the profile is of {profile.model} with {profile.n_layers} layers, the model is {name} with {depth}. "
            f"Make one of this model with `vea profile --model {name}`."
        )
    if not profiles.belongs(profile, adapter.model):
        raise LayerError(
            f"the profile is of {profile.model}, the model is {name}. Make one of this model with `vea profile --model "
            f"{name}`, or pass layers={list(profile.layers)} if they are the same model under two names."
        )
    return _listed(profile.layers, available, depth)
