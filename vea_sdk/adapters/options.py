"""Reading the settings with which a Transformers processor treats its pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vea_sdk.adapters.canvas import Canvas
from vea_sdk.errors import GeometryError


def image_option(processor: Any, name: str) -> Any:
    """An image setting as the processor's call applies it: the combined processor's defaults come before the
    attributes of its image processor."""
    # Transformers 5.16 keeps these defaults in a typed dictionary, 5.23 in an attribute.
    typed = getattr(getattr(processor, "valid_processor_kwargs", None), "_defaults", {})
    for defaults in (typed.get("images_kwargs", {}), getattr(processor, "images_kwargs", {})):
        if defaults.get(name) is not None:
            return defaults[name]
    return getattr(processor.image_processor, name, None)


def video_option(processor: Any, name: str) -> Any:
    """A video setting as the processor's call applies it, as :func:`image_option` reads those of pictures."""
    typed = getattr(getattr(processor, "valid_processor_kwargs", None), "_defaults", {})
    for defaults in (typed.get("videos_kwargs", {}), getattr(processor, "videos_kwargs", {})):
        if defaults.get(name) is not None:
            return defaults[name]
    return getattr(processor.video_processor, name, None)


def size_option(processor: Any, name: str) -> dict[str, int]:
    """A size setting ("size", "crop_size") as a plain dictionary without empty fields."""
    size = image_option(processor, name)
    return {key: int(value) for key, value in dict(size or {}).items() if value is not None}


def video_size_option(processor: Any, name: str) -> dict[str, int]:
    """As :func:`size_option`, of the frames of videos."""
    size = video_option(processor, name)
    return {key: int(value) for key, value in dict(size or {}).items() if value is not None}


def check_canvas(model: str, canvas: Canvas, inputs: Mapping[str, Any]) -> None:
    """Raises GeometryError when ``pixel_values`` do not have the size the processor's settings lead to."""
    pixel_values = inputs.get("pixel_values")
    if pixel_values is not None and tuple(pixel_values.shape[-2:]) != canvas.size:
        raise GeometryError(
            f"{model}: the processor's settings lead to pictures of {canvas.size} (height, width), but "
            f"pixel_values are {tuple(pixel_values.shape[-2:])}. Set sizes and crops on the processor, not "
            "in the call to it."
        )
