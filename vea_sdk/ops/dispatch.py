"""Which implementation serves a call: the compiled kernel of the tensor's device, or plain torch."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from .. import _native

_KERNEL_DTYPES = frozenset((torch.float32, torch.float16, torch.bfloat16))


def kernels_for(tensor: Tensor) -> Any | None:
    """The extension, where it holds kernels for this tensor; else None."""
    if tensor.dtype not in _KERNEL_DTYPES:
        return None
    if tensor.is_cpu:
        return _native.extension()
    if tensor.is_cuda:
        if _native.cuda_problem() is None:
            return _native.extension()
        _native.warn_without_cuda()
    return None


def on_device_of(tensor: Tensor) -> AbstractContextManager[object]:
    """CUDA launches go to the current device, which need not be the tensor's."""
    if tensor.device.index == torch.cuda.current_device():
        return nullcontext()
    return torch.cuda.device(tensor.device)
