"""The kernels: stateless, tensors in, tensors out; compiled for CPU and CUDA, plain torch everywhere else."""

from . import reference
from .image_attention import image_attention
from .topk_mask import topk_mask

__all__ = ["image_attention", "reference", "topk_mask"]
