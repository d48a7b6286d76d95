from torch import Tensor

from .ops.arguments import Arguments

max_dim: int
compiler: str
cuda_archs: str

def cpu_path() -> str: ...
def cuda_devices() -> tuple[int, str]: ...
def image_attention_cpu(
    arguments: Arguments, out: Tensor, accumulate: bool, chosen: Tensor | None, threads: int
) -> None: ...
def topk_mask_cpu(scores: Tensor, k: int, chosen: Tensor, threads: int) -> None: ...
