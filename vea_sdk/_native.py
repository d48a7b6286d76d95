"""Loads the compiled extension on first use, and says what it can do and why not."""

from __future__ import annotations

import functools
import importlib
import platform
import warnings
from typing import Any

import torch

from .errors import NativeExtensionError


@functools.cache
def _load() -> tuple[Any | None, str | None]:
    """(the extension, None), or (None, why not)."""
    try:
        return importlib.import_module("vea_sdk._C"), None
    except ImportError as error:
        return None, f"vea_sdk._C does not load on Python {platform.python_version()}: {error}"


def extension() -> Any | None:
    """The compiled extension, or None where there is none."""
    return _load()[0]


@functools.cache
def cuda_problem() -> str | None:
    """Why the CUDA kernels cannot serve here, or None if they can."""
    native, reason = _load()
    if native is None:
        return reason
    if not native.cuda_archs:
        return "the extension was built without CUDA; install with VEA_CUDA=1 and nvcc on the PATH"
    count, problem = native.cuda_devices()
    if problem:
        return f"the CUDA driver answers: {problem}"
    return None if count else "the CUDA driver lists no device"


@functools.cache
def warn_without_cuda() -> None:
    """Once per process, at the first GPU tensor that plain torch must serve."""
    warnings.warn(
        f"vea_sdk's CUDA kernels are not in use, plain torch serves instead: {cuda_problem()}",
        RuntimeWarning,
        stacklevel=2,
    )


def require() -> Any:
    """The extension, or one error that names every cause."""
    native, reason = _load()
    if native is None:
        raise NativeExtensionError(
            f"{reason}. Reinstall with a C++17 compiler at hand (pip install --no-binary vea-sdk vea-sdk), or go "
            "without: plain torch serves the same operators."
        )
    return native


def build_info() -> dict[str, Any]:
    """What the compiled extension offers here, and every reason why it does not offer more.

    Returns:
        ``native``, ``cuda`` (bool: usable here), ``cuda_archs`` (built for), ``compiler``, ``cpu_path`` (avx512_bf16,
        avx512, avx2 or portable; None without the extension), ``torch``, and ``reasons`` (a list, empty when all is in
        use).
    """
    native, reason = _load()
    reasons = [reason or cuda_problem()]
    return {
        "native": native is not None,
        "cuda": cuda_problem() is None,
        "cuda_archs": native.cuda_archs.split() if native else [],
        "compiler": native.compiler if native else None,
        "cpu_path": native.cpu_path() if native else None,
        "torch": torch.__version__,
        "reasons": [text for text in reasons if text],
    }
