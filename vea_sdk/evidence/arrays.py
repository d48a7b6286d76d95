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
    if tensor.is_complex():
        raise InvalidInputError(f"{name} must hold real numbers, not {tensor.dtype}.")
    if (ndim is not None and tensor.ndim != ndim) or tensor.numel() == 0:
        wanted = "" if ndim is None else f" of {ndim} dimension" + "s" * (ndim > 1)
        raise InvalidInputError(f"{name} must be a non-empty array{wanted}; got shape {tuple(tensor.shape)}.")
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def like(result: Tensor, original: ArrayT) -> ArrayT:
    """``result`` as the kind of array that ``original`` is."""
    return result if isinstance(original, Tensor) else result.numpy()


def check_image_hw(image_hw: tuple[int, int]) -> tuple[int, int]:
    """(height, width) as two positive integers."""
    height, width = (int(side) for side in image_hw)
    if height < 1 or width < 1:
        raise InvalidInputError(f"image_hw={tuple(image_hw)} must be (height, width), both at least 1 pixel.")
    return height, width
