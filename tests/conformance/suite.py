"""Which architectures there are, and one row of the table for each."""

from __future__ import annotations

import importlib
import pkgutil
import time
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import torch
import transformers
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from tests.conformance import models
from tests.conformance.asking import check_ask
from tests.conformance.capture import Mismatch, check_capture
from tests.conformance.geometry import check_geometry, check_no_grid
from tests.conformance.tiny import CASES, LEFT_OUT, Tiny
from tests.conformance.video import NO_GEOMETRY, VIDEO_CASES, check_video
from vea_sdk.adapters import support
from vea_sdk.errors import VeaError

GENERIC = "generic, unverified"


def architectures() -> dict[str, str]:
    """Model type -> class name, as the installed Transformers lists them."""
    for module in pkgutil.iter_modules(models.__path__):
        importlib.import_module(f"{models.__name__}.{module.name}")
    return {name: str(entry) for name, entry in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES.items()}


def start() -> None:
    """Prepare a process: one core, and none of Transformers' remarks on tiny models."""
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()


def run(model_type: str, verbose: bool = False) -> dict[str, Any]:
    """One row: {model_type, class, capture, geometry, …}; "ok", or why not."""
    row: dict[str, Any] = {"model_type": model_type, "class": architectures().get(model_type, "not in this release")}
    if model_type in LEFT_OUT:
        return row | {"capture": LEFT_OUT[model_type], "geometry": "-", "video": "-", "ask": "-"}
    if model_type not in CASES:
        return row | {"capture": GENERIC, "geometry": GENERIC, "video": "-", "ask": "-"}
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            tiny = CASES[model_type]()
        except Exception as error:  # one architecture that does not build must not hide the others
            return row | {"capture": explained(error, verbose), "geometry": "-", "video": "-", "ask": "-"}
        row |= attempt("capture", lambda: captured(tiny), verbose)
        row |= attempt("geometry", lambda: laid_out(tiny), verbose)
        row |= attempt("video", lambda: {"video": video(model_type)}, verbose)
        row |= attempt("ask", lambda: check_ask(tiny), verbose)
        if row.pop("batches_differ", False):
            row["flags"] = [*row.get("flags", []), support.BATCHES_DIFFER]
    return row | {"seconds": round(time.perf_counter() - start, 1)}


def captured(tiny: Tiny) -> dict[str, Any]:
    result = check_capture(tiny)
    flags = {
        "sliding": result.sliding,
        "hybrid": result.layers < result.depth,
        "cross-attention": tiny.cross,
        "no left padding": not tiny.padded,
        "one picture": not tiny.several,
        tiny.remark: bool(tiny.remark),
    }
    return {
        "capture": "ok",
        "eager_error": float(f"{result.eager_error:.1e}"),
        "float64_error": float(f"{result.float64_error:.1e}"),
        "flags": [flag for flag, holds in flags.items() if holds],
    }


def laid_out(tiny: Tiny) -> dict[str, Any]:
    if tiny.no_grid is not None:
        check_no_grid(tiny)
        return {"geometry": tiny.no_grid}
    result = check_geometry(tiny)
    return {
        "geometry": "ok",
        "correlation_x": round(result.correlation_x, 4),
        "correlation_y": round(result.correlation_y, 4),
        "bias": round(result.bias, 2),
    }


def video(model_type: str) -> str:
    """ "ok", why frames have no place, or "-" where the processor takes no video."""
    if model_type not in VIDEO_CASES:
        return NO_GEOMETRY.get(model_type, "-")
    check_video(model_type)
    return "ok"


def attempt(what: str, check: Callable[[], dict[str, Any]], verbose: bool) -> dict[str, Any]:
    try:
        return check()
    except Exception as error:
        return {what: explained(error, verbose)}


def explained(error: Exception, verbose: bool) -> str:
    if verbose:
        traceback.print_exception(error)
    kind = "" if isinstance(error, (Mismatch, VeaError)) else f"{type(error).__name__}: "
    return f"FAILED {kind}{error}".split("\n")[0]
