"""Pictures of any kind → RGB, 8 bits, upright."""

from __future__ import annotations

import io
import struct
import subprocess
from collections.abc import Sequence
from os import PathLike
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from vea_sdk.errors import ImageError
from vea_sdk.evidence.sources import Bytes, content_of, reason

ImageSource = str | PathLike[str] | Image.Image | NDArray[Any] | Tensor | Bytes | IO[bytes]

MAX_PIXELS = 100_000_000
"""Pictures with more pixels are refused unless ``max_pixels`` says otherwise: decoded, they take 3 bytes each."""

FORMATS = ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM"]
"""File formats that are opened, by Pillow's names; add those of a plugin. Others start programs (EPS) or are no
pictures of one page."""

_CHANNELS = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}

_ORIENTATION = 274  # EXIF's tag
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_BROKEN = (
    *(OSError, ValueError, SyntaxError, RuntimeError, TypeError, EOFError, MemoryError, LookupError, ArithmeticError),
    *(AttributeError, struct.error, subprocess.SubprocessError),
)
"""What Pillow's decoders, those of plugins and the programs they start raise on broken files."""


def is_single(image: object) -> bool:
    """Whether this is one picture, not a sequence of them."""
    return not isinstance(image, Sequence) or isinstance(image, str | bytes | bytearray | memoryview)


def load_image(source: ImageSource, max_pixels: int = MAX_PIXELS, fetch: bool = False) -> Image.Image:
    """Open a picture and make it RGB, upright, with white behind what is transparent.

    EXIF orientation is applied. Of an animation, a file gives its first frame and a PIL picture its current one.
    The conversions are those of :func:`to_rgb`.

    Args:
        source: a path, a ``file://`` or ``data:`` URL, an http(s) address with ``fetch=True``; a file's bytes, or an
            open binary file, read from its start; a PIL picture; an array [H, W] or [H, W, 1 to 4 channels], or a
            tensor of these shapes or [1 to 4 channels, H, W] where the last side is no number of channels: bool, uint8,
            uint16, or float.
        max_pixels: the largest height · width; a file's is checked before it is decoded.
        fetch: whether an http(s) address may be fetched.

    Returns:
        A new RGB picture; the source stays as it was.

    Raises:
        ImageError: nothing there or not readable, 0 pixels, more than ``max_pixels``, or of an unsupported kind.
    """
    if isinstance(source, Image.Image):
        return _decoded(source, "the PIL picture", max_pixels)
    if isinstance(source, Tensor):
        source = _from_tensor(source)
    if isinstance(source, np.ndarray):
        return _prepared(_from_array(source, max_pixels), max_pixels)
    name, content = content_of(source, fetch)
    try:
        opened = Image.open(io.BytesIO(content) if isinstance(content, bytes) else content, formats=_formats())
    except Image.DecompressionBombError as error:
        raise _beyond_pil(name, error, max_pixels) from error
    except UnidentifiedImageError as error:
        raise ImageError(
            f"{name} cannot be read as a picture: it is none of {', '.join(_formats())}. Convert it to one of these."
        ) from error
    except _BROKEN as error:
        raise ImageError(f"{name} cannot be read as a picture: {reason(error)}") from error
    with opened:
        return _decoded(opened, name, max_pixels)


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


def _formats() -> list[str]:
    """Those of ``FORMATS`` that this Pillow can open."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _decoded(image: Image.Image, name: str, max_pixels: int) -> Image.Image:
    """Decode a picture, which Pillow may have left for later."""
    try:
        return _prepared(image, max_pixels)
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from error
    except Image.DecompressionBombError as error:
        raise _beyond_pil(name, error, max_pixels) from error
    except _BROKEN as error:
        raise ImageError(f"{name} cannot be read as a picture: {reason(error)}") from error


def _beyond_pil(name: str, error: Exception, max_pixels: int) -> ImageError:
    return ImageError(
        f"{name}: {error} The cap here is max_pixels={max_pixels}; beyond PIL's own limit, raise "
        "PIL.Image.MAX_IMAGE_PIXELS too, or shrink the picture."
    )


def _prepared(image: Image.Image, max_pixels: int) -> Image.Image:
    _check_size(image.height, image.width, max_pixels)
    image.load()  # first: of a broken PNG, getexif() would meet the error, and a second loading passes over it
    # Only this tag is read: one that is malformed beside it says nothing about how the picture stands.
    turn = _UPRIGHT.get(_orientation(image))
    picture = to_rgb(image.copy() if turn is None else image.transpose(turn))
    picture.info = {}  # what says how the file stood would turn the upright picture again when it is loaded once more
    return picture


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION)
    except (SyntaxError, ValueError, struct.error, TypeError, KeyError, OSError):
        return 1
    return value if isinstance(value, int) else 1


def _check_size(height: int, width: int, max_pixels: int) -> None:
    if height * width == 0:
        raise ImageError(f"A picture of {height}x{width} pixels (height x width) is empty. Pass at least one pixel.")
    if height * width > max_pixels:
        raise ImageError(
            f"A picture of {height}x{width} pixels (height x width) is above the cap of {max_pixels}. Shrink it, or "
            f"pass max_pixels={height * width}."
        )


def _from_tensor(tensor: Tensor) -> NDArray[Any]:
    """As an array, channels last."""
    values = tensor.detach().cpu()
    if values.dtype == torch.bfloat16:
        values = values.float()
    array: NDArray[Any] = values.numpy()
    if array.ndim == 3 and array.shape[2] not in _CHANNELS and array.shape[0] in _CHANNELS:
        array = array.transpose(1, 2, 0)
    return array


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
