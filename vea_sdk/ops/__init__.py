"""The kernels: stateless, tensors in, tensors out; compiled for CPU and CUDA, plain torch everywhere else."""

from . import reference
from .image_attention_op import image_attention
from .topk_mask_op import topk_mask

__all__ = ["image_attention", "reference", "topk_mask"]
