"""Pictures of any kind → RGB, 8 bits, upright."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from vea_sdk.errors import ImageError

ImageSource = str | Path | Image.Image | NDArray[Any]

MAX_PIXELS = 100_000_000
"""Pictures with more pixels are refused unless ``max_pixels`` says otherwise: decoded, they take 3 bytes each."""

_CHANNELS = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


def load_image(source: ImageSource, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Open a picture and make it RGB, upright, with white behind what is transparent.

    EXIF orientation is applied. Of an animation, a file gives its first frame and a PIL picture its current one.
    The conversions are those of :func:`to_rgb`.

    Args:
        source: a path, a PIL picture, or an array [H, W] or [H, W, 1 to 4 channels]: bool, uint8, uint16, or float.
        max_pixels: the largest height · width; a file's is checked before it is decoded.

    Returns:
        A new RGB picture; the source stays as it was.

    Raises:
        ImageError: nothing there or not readable, 0 pixels, more than ``max_pixels``, or of an unsupported kind.
    """
    if isinstance(source, str | Path):
        return _load_file(Path(source), max_pixels)
    if isinstance(source, Image.Image):
        return _prepared(source, max_pixels)
    if isinstance(source, np.ndarray):
        return _prepared(_from_array(source, max_pixels), max_pixels)
    raise ImageError(f"A {type(source).__name__} is no picture. Pass a path, a PIL picture or a numpy array [H, W, 3].")


def to_rgb(image: Image.Image) -> Image.Image:
    """Any PIL mode → RGB, 8 bits per channel.

    Transparency is laid on white. 16 bits (modes I;16 and I, 0 to 65535) are divided by 257. Floats (mode F) count
    from 0 to 1, or from 0 to 255 if any of them is above 1. All other modes are converted as PIL does.

    Raises:
        ImageError: values outside these ranges, or a mode that PIL cannot convert.
    """
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_eight_bits(np.asarray(image))).convert("RGB")
    if image.mode in ("La", "RGBa"):  # alpha is multiplied in
        image = image.convert(image.mode.upper())
    try:
        if image.has_transparency_data:
            image = image.convert("RGBA")
            return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
        return image.convert("RGB")
    except ValueError as error:
        raise ImageError(f"A picture of mode {image.mode} cannot be made RGB: {error}. Convert it first.") from error


def _load_file(path: Path, max_pixels: int) -> Image.Image:
    if str(path).startswith(("http:/", "https:/")):
        raise ImageError(f"{str(path)!r} is an address. Download the picture and pass the file.")
    try:
        with Image.open(path) as image:
            return _prepared(image, max_pixels)
    except ImageError as error:
        raise ImageError(f"{str(path)!r}: {error}") from error
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"{str(path)!r}: {error} The cap here is max_pixels={max_pixels}; beyond PIL's own limit, raise "
            "PIL.Image.MAX_IMAGE_PIXELS too, or shrink the picture."
        ) from error
    except FileNotFoundError as error:
        raise ImageError(f"There is no file {str(path)!r}.") from error
    except (OSError, ValueError, SyntaxError) as error:  # what PIL's decoders raise on broken files
        raise ImageError(f"{str(path)!r} cannot be read as a picture: {error}") from error


def _prepared(image: Image.Image, max_pixels: int) -> Image.Image:
    _check_size(image.height, image.width, max_pixels)
    upright = ImageOps.exif_transpose(image)  # a copy, decoded
    return to_rgb(upright)


def _check_size(height: int, width: int, max_pixels: int) -> None:
    if height * width == 0:
        raise ImageError(f"A picture of {height}x{width} pixels (height x width) is empty. Pass at least one pixel.")
    if height * width > max_pixels:
        raise ImageError(
            f"A picture of {height}x{width} pixels (height x width) is above the cap of {max_pixels}. Shrink it, or "
            f"pass max_pixels={height * width}."
        )


def _from_array(array: NDArray[Any], max_pixels: int) -> Image.Image:
    channels = 1 if array.ndim == 2 else array.shape[-1] if array.ndim == 3 else 0
    if array.size and channels not in _CHANNELS:
        raise ImageError(f"An array of shape {array.shape} is no picture. Pass [H, W] or [H, W, 1 to 4 channels].")
    height, width = (*array.shape, 0, 0)[:2]
    _check_size(height, width, max_pixels)
    if array.dtype.kind in "iu" and array.dtype not in (np.uint8, np.uint16):
        raise ImageError(f"Pixels of type {array.dtype} do not say how bright is white. Convert them to uint8.")
    pixels = _eight_bits(array)
    return Image.fromarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels)


def _eight_bits(values: NDArray[Any]) -> NDArray[np.uint8]:
    """bool, 8 bits, 16 bits (PIL also keeps them in wider integers), or floats → uint8."""
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype.kind not in "iuf":
        raise ImageError(f"Pixels of type {values.dtype} are not supported. Convert them to uint8.")
    low, high = float(values.min()), float(values.max())
    if values.dtype.kind == "f":
        full, name = (1.0 if high <= 1 else 255.0), "floats"
    else:
        full, name = 65535.0, "16-bit integers"
    if not (low >= 0 and high <= full):
        raise ImageError(
            f"Pixels as {name} must lie between 0 and {full:g}; these span {low:g} to {high:g}. Convert them to uint8."
        )
    return np.rint(values * (255.0 / full)).astype(np.uint8)
