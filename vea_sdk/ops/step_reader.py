"""``step_reader``: the short way to the rows of decoding steps."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from .dispatch import kernels_for


class StepReader(Protocol):
    """Fills a row of the buffers: scores with those of ``image_attention``, stats with its figures."""

    def __call__(self, row: int, query: Tensor, key: Tensor, scale: float | None, kept: int, /) -> bool:
        """Read row ``row`` from query [B, Hq, 1, D] and key [B, Hkv, Lk, D], whatever it held before.

        Returns False, and does nothing, for anything but that: another shape, dtype or device, more than the kernel
        takes, a row that the buffers do not have, fewer than ``kept`` keys, on the CPU an image token beyond the keys.
        ``image_attention`` then has the answer, or the message. On a GPU, where looking at the index would stall it,
        such a token gives NaN, as in ``image_attention``; the row is written on the device's current stream.
        """


def step_reader(image_index: Tensor, scores: Tensor, stats: Tensor) -> StepReader | None:
    """What reads steps of decoding over the same image tokens, one row after the other; None where plain torch serves.

    Between two steps the model pushes all else out of the caches, so each object that is touched costs more than the
    work on it. What stays is therefore read and checked here, once; a step looks at its query and keys alone. The index
    must not change meanwhile.

    Args:
        image_index: [B, M] as in ``image_attention``.
        scores: [rows, B, M] float32, contiguous.
        stats: [rows, B, 4] float32, contiguous.

    Raises:
        InvalidInputError: of these three, what does not fit.
    """
    kernels = kernels_for(scores)
    if kernels is None:
        return None
    if scores.is_cuda:
        return _on_gpu(kernels, image_index, scores, stats)
    reader: StepReader = kernels.step_reader_cpu(image_index, scores, stats, torch.get_num_threads())
    return reader


def _on_gpu(kernels: Any, image_index: Tensor, scores: Tensor, stats: Tensor) -> StepReader:
    read = kernels.step_reader_cuda(image_index, scores, stats)
    device = scores.device.index
    current_device = torch.cuda.current_device
    stream_of = torch._C._cuda_getCurrentRawStream  # what torch's own compiled graphs call: no object, one number

    def step(row: int, query: Tensor, key: Tensor, scale: float | None, kept: int, /) -> bool:
        if current_device() != device:  # to which launches go
            with torch.cuda.device(device):
                return step(row, query, key, scale, kept)
        done: bool = read(row, query, key, scale, kept, stream_of(device))
        return done

    return step
