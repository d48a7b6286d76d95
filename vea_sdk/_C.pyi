from torch import Tensor

from .ops.arguments import Arguments

max_dim_cpu: int
max_dim_cuda: int
compiler: str
cuda_archs: str

def cpu_path() -> str: ...
def image_attention_cpu(
    arguments: Arguments, out: Tensor, accumulate: bool, chosen: Tensor | None, threads: int
) -> None: ...
def topk_mask_cpu(scores: Tensor, k: int, chosen: Tensor, threads: int) -> None: ...

# Only in a build with CUDA (cuda_archs is not empty):
def cuda_devices() -> tuple[int, str]: ...
def image_attention_workspace(batch: int, heads: int, kv_heads: int, keys: int, tokens: int) -> tuple[int, int]: ...
def image_attention_cuda(
    arguments: Arguments,
    out: Tensor,
    accumulate: bool,
    chosen: Tensor | None,
    tickets: int,
    workspace: int,
    stream: int,
) -> None: ...
def topk_mask_cuda(scores: Tensor, k: int, chosen: Tensor, stream: int) -> None: ...
