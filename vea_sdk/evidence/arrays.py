"""Numpy or torch in, the same kind out."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vea_sdk.errors import InvalidInputError

ArrayT = TypeVar("ArrayT", NDArray[Any], Tensor)


def to_tensor(name: str, array: NDArray[Any] | Tensor, ndim: int | None = None) -> Tensor:
    """The array as a floating tensor on its own device, without a copy where none is needed.

    float64 stays float64, everything else becomes float32. ``ndim``: the number of dimensions it must have.
    """
    # torch neither reads negative strides nor shares read-only memory.
    owned = array if isinstance(array, Tensor) else np.require(array, requirements=("C", "W"))
    tensor = torch.as_tensor(owned)
    _check(name, tensor.is_complex(), tensor.dtype, tuple(tensor.shape), ndim)
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def to_numpy(name: str, array: NDArray[Any] | Tensor, ndim: int | None = None) -> NDArray[Any]:
    """As :func:`to_tensor`, but as a numpy array in host memory and without gradients; it may be read-only."""
    if isinstance(array, Tensor):
        return to_tensor(name, array.detach(), ndim).cpu().numpy()
    values = np.asarray(array)
    _check(name, values.dtype.kind == "c", values.dtype, values.shape, ndim)
    return values if values.dtype == np.float64 else values.astype(np.float32, copy=False)


def _check(name: str, is_complex: bool, dtype: object, shape: tuple[int, ...], ndim: int | None) -> None:
    if is_complex:
        raise InvalidInputError(f"{name} must hold real numbers, not {dtype}.")
    if (ndim is not None and len(shape) != ndim) or 0 in shape:
        wanted = "" if ndim is None else f" of {ndim} dimension" + "s" * (ndim > 1)
        raise InvalidInputError(f"{name} must be a non-empty array{wanted}; got shape {shape}.")


def like(result: NDArray[Any] | Tensor, original: ArrayT) -> ArrayT:
    """``result`` as the kind of array that ``original`` is, on its device."""
    if isinstance(original, Tensor):
        return torch.as_tensor(result).to(original.device)
    return result.numpy() if isinstance(result, Tensor) else result


def device_of(array: NDArray[Any] | Tensor) -> torch.device:
    return array.device if isinstance(array, Tensor) else torch.device("cpu")


def check_image_hw(image_hw: tuple[int, int]) -> tuple[int, int]:
    """(height, width) as two positive integers."""
    height, width = (int(side) for side in image_hw)
    if height < 1 or width < 1:
        raise InvalidInputError(f"image_hw={tuple(image_hw)} must be (height, width), both at least 1 pixel.")
    return height, width
