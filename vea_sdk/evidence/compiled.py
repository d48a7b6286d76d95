"""The compiled loops over pixels: float32 maps and 8-bit pictures in host memory.

Everything else (float64, other devices, gradients, no extension) is served by the plain code beside each caller.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray

from vea_sdk import _native


def kernels_for(dtype: object, device: torch.device) -> Any | None:
    """The extension, where it can make maps of this dtype (numpy's or torch's) on this device; else None."""
    single = dtype in (np.float32, torch.float32)
    return _native.extension() if single and device.type == "cpu" and not torch.compiler.is_compiling() else None


def threads_for(pixels: int) -> int:
    """One per million pixels: fewer take about as long as waking a second thread may."""
    return min(torch.get_num_threads(), max(1, pixels // 1_000_000))


def empty(kernels: Any, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """An array of any contents, on large pages: touching 3 MB in pages of 4 KB costs more than computing them."""
    count = int(np.prod(shape))
    block = kernels.Block(count * np.dtype(dtype).itemsize)
    return np.frombuffer(block, dtype=dtype, count=count).reshape(shape)
