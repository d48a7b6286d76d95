"""Which implementation serves a call: the compiled kernel of the tensor's device, or plain torch."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from .. import _native
from .arguments import Arguments

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


# Counters by which the blocks of a launch find out which of them is last. A launch leaves them zero, so they are
# cleared once: per stream, since launches on one stream follow each other and may share them, and once for the CUDA
# graphs of a device, where every captured launch gets some of its own, as a graph may be replayed on any stream.
_TICKETS: dict[tuple[int, int], Tensor] = {}
_GRAPH_TICKETS: dict[int, Tensor] = {}
_GRAPH_WORDS = 1 << 16


def cuda_workspace(kernels: Any, a: Arguments, stream: int) -> tuple[Tensor, Tensor]:
    """(tickets, scratch) for one launch, from torch's allocator, so that a CUDA graph may capture it."""
    device = a.query.device
    batch, heads, kv_heads, keys = *a.query.shape[:2], *a.key.shape[1:3]
    words, floats = kernels.image_attention_workspace(batch, heads, kv_heads, keys, a.image_index.shape[1])
    scratch = torch.empty(floats, dtype=torch.float32, device=device)
    if torch.cuda.is_current_stream_capturing():
        return _tickets_for_graph(device, words), scratch
    if device.index not in _GRAPH_TICKETS:  # by the warm-up that comes before every capture
        _GRAPH_TICKETS[device.index] = torch.zeros(_GRAPH_WORDS, dtype=torch.int32, device=device)
    tickets = _TICKETS.get((device.index, stream))
    if tickets is None or len(tickets) < words:
        tickets = torch.zeros(max(words, 1024), dtype=torch.int32, device=device)
        _TICKETS[device.index, stream] = tickets
    return tickets, scratch


def _tickets_for_graph(device: torch.device, words: int) -> Tensor:
    left = _GRAPH_TICKETS.get(device.index)
    if left is None or len(left) < words:  # no warm-up, or many graphs: cleared by each replay, one more launch
        return torch.zeros(words, dtype=torch.int32, device=device)
    _GRAPH_TICKETS[device.index] = left[words:]
    return left[:words]
