"""Which implementation serves a call: the compiled kernel of the tensor's device, or plain torch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import _native

_KERNEL_DTYPES = frozenset((torch.float32, torch.float16, torch.bfloat16))


def cpu_kernels(tensor: Tensor) -> Any | None:
    """The extension, where it can read this tensor on the CPU."""
    if not tensor.is_cpu or tensor.dtype not in _KERNEL_DTYPES:
        return None
    return _native.extension()
