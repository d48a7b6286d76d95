"""Loads the compiled extension on first use, and says what it can do and why not."""

from __future__ import annotations

import functools
import importlib
import importlib.machinery
import importlib.metadata
import importlib.util
import os
import platform
import sys
import warnings
from pathlib import Path
from typing import Any

import torch

from ._version import __version__
from .errors import NativeExtensionError

_NAME = "vea_sdk._C"
_SOURCES = Path(__file__).parents[1]


@functools.cache
def _load() -> tuple[Any | None, str | None]:
    """(the extension, None), or (None, why not).

    Python that is started inside a clone imports the clone's package, which holds no extension unless it was installed
    from there to be edited. Then that of the installed package serves, if it is of the same release.
    """
    try:
        return _ready(importlib.import_module(_NAME)), None
    except ImportError as error:
        reason = f"{_NAME} does not load on Python {platform.python_version()}: {error}"
        in_clone = isinstance(error, ModuleNotFoundError) and (_SOURCES / "csrc").is_dir()
        if not in_clone or _NAME in sys.modules:  # None there hides it on purpose
            return None, reason
    try:
        if (found := _installed()) is not None:
            return _ready(found), None
    except ImportError as error:
        reason = f"the installed {_NAME} does not load: {error}"
    warnings.warn(
        f"vea_sdk comes from its sources in {_SOURCES}, which hold no compiled kernels, and no installed vea-sdk "
        f"{__version__} with the same functions lends its own, so plain torch serves, slower. Run `pip install -e .` "
        "there, or install it and start Python in another folder.",
        RuntimeWarning,
        stacklevel=2,
    )
    return None, reason


def _installed() -> Any | None:
    """The extension of an installed package of this release and these functions, loaded under its usual name; None
    where there is none."""
    for distribution in importlib.metadata.distributions(name="vea-sdk"):
        for suffix in importlib.machinery.EXTENSION_SUFFIXES:
            path = Path(str(distribution.locate_file(f"vea_sdk/_C{suffix}")))
            if distribution.version == __version__ and path.is_file() and _declared(path) == _declared(Path(__file__)):
                spec = importlib.util.spec_from_file_location(_NAME, path)
                assert spec is not None
                assert spec.loader is not None
                module = importlib.util.module_from_spec(spec)
                spec.loader.exec_module(module)
                sys.modules[_NAME] = module
                return module
    return None


def _declared(beside: Path) -> str | None:
    """The functions that the extension of a package has, by its own declarations."""
    stub = beside.with_name("_C.pyi")
    return stub.read_text(encoding="utf-8") if stub.is_file() else None


def extension() -> Any | None:
    """The compiled extension, or None where there is none."""
    return _load()[0]


def _ready(native: Any) -> Any:
    if _in_child:
        native.leave_torchs_threads()
    return native


def _forked() -> None:
    """In a forked child, where torch's threads are gone: the kernels must not wait for them. Once it is loaded, the
    extension notices forks by itself; but the parent may have run torch alone."""
    global _in_child
    _in_child = True


_in_child = False
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


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
        ``native``, ``path`` (the extension's file), ``cuda`` (bool: usable here), ``cuda_archs`` (built for),
        ``compiler``, ``cpu_path`` (avx512_bf16, avx512, avx2 or portable), ``torch``, and ``reasons`` (a list, empty
        when all is in use). Without the extension what is known of it alone is None.
    """
    native, reason = _load()
    reasons = [reason or cuda_problem()]
    return {
        "native": native is not None,
        "path": native.__file__ if native else None,
        "cuda": cuda_problem() is None,
        "cuda_archs": native.cuda_archs.split() if native else [],
        "compiler": native.compiler if native else None,
        "cpu_path": native.cpu_path() if native else None,
        "torch": torch.__version__,
        "reasons": [text for text in reasons if text],
    }
