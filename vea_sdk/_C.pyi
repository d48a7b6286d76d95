from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from numpy import float32, uint8
from numpy.typing import NDArray
from torch import Tensor

from .ops.arguments import Arguments
from .ops.step_reader import StepReader

max_dim_cpu: int
max_dim_cuda: int
max_heads_cuda: int
compiler: str
cuda_archs: str

def cpu_path() -> str: ...
def leave_torchs_threads() -> None: ...
def tapper(
    active: ContextVar[tuple[Any, ...]], attend: Callable[..., Any], attended: Callable[..., Any], /
) -> Callable[[Callable[..., Any], str | None], Callable[..., Any]]: ...
def image_attention_cpu(
    arguments: Arguments, out: Tensor, accumulate: bool, chosen: Tensor | None, stats: Tensor | None, threads: int
) -> None: ...
def step_reader_cpu(image_index: Tensor, scores: Tensor, stats: Tensor, threads: int) -> StepReader: ...
def topk_mask_cpu(scores: Tensor, k: int, chosen: Tensor, threads: int) -> None: ...
def expand_cpu(
    left: NDArray[float32],
    core: NDArray[float32],
    right: NDArray[float32],
    out: NDArray[float32],
    accumulate: bool,
    threads: int,
) -> tuple[float, float]: ...
def highlight_cpu(
    picture: NDArray[uint8] | Any,
    map: NDArray[float32],  # noqa: A002
    alpha: float,
    result: NDArray[uint8],
    threads: int,
) -> tuple[float, float]: ...

class Block:
    def __init__(self, size: int) -> None: ...
    def __buffer__(self, flags: int) -> memoryview: ...
    def __arrow_c_array__(self, requested_schema: object = None) -> tuple[Any, Any]: ...

# Only in a build with CUDA (cuda_archs is not empty):
def cuda_devices() -> tuple[int, str]: ...
def image_attention_cuda(
    arguments: Arguments,
    out: Tensor,
    accumulate: bool,
    chosen: Tensor | None,
    stats: Tensor | None,
    stream: int,
) -> None: ...
def step_reader_cuda(
    image_index: Tensor, scores: Tensor, stats: Tensor
) -> Callable[[int, Tensor, Tensor, float | None, int, int], bool]: ...  # the last is the stream
def topk_mask_cuda(scores: Tensor, k: int, chosen: Tensor, stream: int) -> None: ...
