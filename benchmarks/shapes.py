"""The shapes that the kernel is measured at: too small to matter, everyday, and far beyond the caches."""

from __future__ import annotations

import torch

from vea_sdk.benchmark.kernels import Shape

DTYPES = (torch.float32, torch.float16, torch.bfloat16)

QWEN = (28, 4, 128)  # Hq, Hkv, D of Qwen2.5-VL-7B
LLAVA = (32, 32, 128)  # of LLaVA-1.5-7B: every head has its own keys
SMALL = (4, 2, 16)

EVERY_SIZE = (
    *(Shape(1, heads, kv, keys, dim) for heads, kv, dim in (SMALL, QWEN) for keys in (1, 17, 64, 111, 256, 576, 989)),
    *(Shape(1, *QWEN[:2], keys, QWEN[2]) for keys in (1300, 2500, 4096, 16384, 65536)),
    *(Shape(1, *LLAVA[:2], keys, LLAVA[2]) for keys in (1, 64, 640, 2048, 8192)),
    Shape(4, *QWEN[:2], 300, QWEN[2]),
    Shape(8, 16, 4, 2048, 64),
    Shape(32, *QWEN[:2], 1300, QWEN[2]),
)

BEYOND_CACHE = (  # 134 to 268 MB of keys
    Shape(8, *QWEN[:2], 16384, QWEN[2]),
    Shape(1, *LLAVA[:2], 16384, LLAVA[2]),
    Shape(32, 8, 8, 8192, 64),
)
