"""What this machine can do at most, as calls that can be timed beside a kernel."""

from __future__ import annotations

import ctypes
import functools
import os
import shlex
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor


def read(memory: Tensor) -> Callable[[], object]:
    """Read a contiguous tensor once: a float32 sum on all cores, whatever it holds.

    Give the very memory that the kernel reads: how fast memory is depends on its pages, by a factor of two.
    """
    return memory.view(-1).view(torch.float32).sum


def multiply_add(operations: int) -> Callable[[], object]:
    """Do ``operations`` float32 multiplications and additions in registers, on all threads of torch."""
    library, threads = _library(), torch.get_num_threads()
    return lambda: library.multiply_add(operations, threads)


@functools.cache
def _library() -> ctypes.CDLL:
    source = Path(__file__).with_name("fma_peak.cpp")
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "fma_peak.so"
        compiler = shlex.split(os.environ.get("CXX", "c++"))
        flags = ["-O3", "-march=native", "-std=c++17", "-shared", "-fPIC", "-pthread", "-w"]
        subprocess.run([*compiler, *flags, str(source), "-o", str(target)], check=True)
        library = ctypes.CDLL(str(target))
    library.multiply_add.argtypes = [ctypes.c_int64, ctypes.c_int]
    library.multiply_add.restype = ctypes.c_float
    return library
