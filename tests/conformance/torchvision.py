"""A stand-in for the few picture functions of torchvision that Transformers' image processors call.

About twenty architectures have no image processor on Pillow. Their processors only resize, pad, crop and normalise,
and that is all there is here, on plain torch. It is installed before Transformers is imported, in the suite's own
processes, and only where torchvision is absent. Where things land is exact; pixel values may differ in rounding.
"""

from __future__ import annotations

import enum
import importlib.machinery
import importlib.util
import io
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor


class InterpolationMode(enum.Enum):
    NEAREST = "nearest"
    NEAREST_EXACT = "nearest-exact"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    BOX = "box"
    HAMMING = "hamming"
    LANCZOS = "lanczos"


def resize(
    image: Tensor, size: Sequence[int], interpolation: Any = None, max_size: Any = None, antialias: bool = True
) -> Tensor:
    """[..., H, W] resized to ``size`` (height, width)."""
    mode = getattr(interpolation, "value", "bilinear")
    mode = mode if mode in ("nearest", "bilinear", "bicubic") else "bicubic"
    smooth = antialias and mode != "nearest"
    flat = image.reshape(-1, 1, *image.shape[-2:])
    out = torch.nn.functional.interpolate(flat.float(), tuple(int(n) for n in size), mode=mode, antialias=smooth)
    if not image.is_floating_point():
        out = out.round().clamp(0, 255)
    return out.to(image.dtype).reshape(*image.shape[:-2], *out.shape[-2:])


def pad(image: Tensor, padding: Any, fill: Any = 0, padding_mode: str = "constant") -> Tensor:
    """``padding``: (left, top, right, bottom), (x, y), or one number for all sides."""
    sides = [padding] * 4 if isinstance(padding, int) else [int(side) for side in padding]
    left, top, right, bottom = sides * 2 if len(sides) == 2 else sides
    if isinstance(fill, Sequence):
        planes = [pad(image[..., i : i + 1, :, :], sides, value, padding_mode) for i, value in enumerate(fill)]
        return torch.cat(planes, dim=-3)
    mode = {"constant": "constant", "edge": "replicate", "reflect": "reflect"}[padding_mode]
    options = {"value": float(fill or 0)} if mode == "constant" else {}
    return torch.nn.functional.pad(image.float(), (left, right, top, bottom), mode, **options).to(image.dtype)


def crop(image: Tensor, top: int, left: int, height: int, width: int) -> Tensor:
    """A window; where it leaves the picture, zeros."""
    bottom, right = top + height, left + width
    rows, cols = image.shape[-2:]
    inside = image[..., max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    return pad(inside, (max(-left, 0), max(-top, 0), max(right - cols, 0), max(bottom - rows, 0)))


def normalize(image: Tensor, mean: Any, std: Any, inplace: bool = False) -> Tensor:
    mean, std = (torch.as_tensor(value, dtype=image.dtype).reshape(-1, 1, 1) for value in (mean, std))
    return (image - mean) / std


def to_dtype(image: Tensor, dtype: torch.dtype = torch.float32, scale: bool = False) -> Tensor:
    factor = 1 / 255 if scale and not image.is_floating_point() and dtype.is_floating_point else 1
    return image.to(dtype) * factor


def grayscale_to_rgb(image: Any) -> Any:
    if isinstance(image, Tensor):
        return image.expand(*image.shape[:-3], 3, *image.shape[-2:]) if image.shape[-3] == 1 else image
    return image.convert("RGB")


def rgb_to_grayscale(image: Tensor, num_output_channels: int = 1) -> Tensor:
    """Luma of ITU-R BT.601."""
    weights = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    luma = (image.float() * weights).sum(dim=-3, keepdim=True).to(image.dtype)
    return luma.repeat_interleave(num_output_channels, dim=-3)


def pil_to_tensor(image: Any) -> Tensor:
    pixels = np.array(image)
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1)).permute(2, 0, 1).contiguous()


def to_pil_image(image: Tensor) -> Any:
    return Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())


class ImageReadMode(enum.Enum):
    UNCHANGED = None
    GRAY = "L"
    RGB = "RGB"


def decode_image(data: Tensor, mode: ImageReadMode = ImageReadMode.UNCHANGED) -> Tensor:
    """The bytes of a picture file as [channels, H, W] uint8."""
    image = Image.open(io.BytesIO(bytes(data.tolist())))
    return pil_to_tensor(image.convert(mode.value) if mode.value else image)


FUNCTIONS: tuple[Any, ...] = (
    InterpolationMode,
    resize,
    pad,
    crop,
    normalize,
    to_dtype,
    grayscale_to_rgb,
    rgb_to_grayscale,
    pil_to_tensor,
    to_pil_image,
)


def install() -> None:
    """Answer ``import torchvision`` with this module's functions, unless the real one is there."""
    if importlib.util.find_spec("torchvision") is not None:
        return
    names = ("", ".io", ".ops", ".ops.boxes", ".transforms", ".transforms.functional", ".transforms.v2")
    for name in (*names, ".transforms.v2.functional"):
        module = ModuleType(f"torchvision{name}")
        module.__spec__ = importlib.machinery.ModuleSpec(module.__name__, None, is_package=True)
        module.__path__ = []
        module.__version__ = "0.0"  # type: ignore[attr-defined]
        if name.startswith(".transforms"):
            vars(module).update(
                {one.__name__: one for one in FUNCTIONS}, to_image=pil_to_tensor, to_dtype_image=to_dtype
            )
        if name == ".io":  # where older releases of Transformers look
            vars(module).update(ImageReadMode=ImageReadMode, decode_image=decode_image)
        sys.modules[module.__name__] = module
        parent, _, child = module.__name__.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)
