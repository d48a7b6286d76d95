"""From a checkpoint to a wrapped model, with a clear error for everything that is not one."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vea_sdk.adapters import Adapter
from vea_sdk.capture.layers import LayerSelection
from vea_sdk.errors import CheckpointError, InvalidInputError, UnsupportedModelError
from vea_sdk.evidence.images import MAX_PIXELS
from vea_sdk.pipeline import VLM, wrap
from vea_sdk.profiles import is_folder
from vea_sdk.prompts import HIGHLIGHT_PROMPT, PLAIN_PROMPT

_OWN_CODE = (
    "load() runs no code of a checkpoint. Where you trust it, load model and processor with Transformers and use "
    "vea.wrap(model, processor)."
)


def load(
    checkpoint: str | Path,
    device: str | torch.device | None = None,
    dtype: torch.dtype | str = "auto",
    *,
    layers: LayerSelection = "profiled",
    lam: float = 10.0,
    sigma: float = 0.5,
    alpha: float = 0.5,
    attend_with: VLM | str | Path | None = None,
    plain_prompt: str = PLAIN_PROMPT,
    highlight_prompt: str = HIGHLIGHT_PROMPT,
    adapter: Adapter | type[Adapter] | None = None,
    max_pixels: int = MAX_PIXELS,
    fetch: bool = False,
    **kwargs: Any,
) -> VLM:
    """Load a checkpoint folder or hub name with Transformers' Auto classes, and wrap it.

    Weights come from safetensors only, and no code of a checkpoint is run or asked about: the classes are Transformers'
    own.

    Args:
        checkpoint: a folder written by ``save_pretrained``, or a name on the hub.
        device: where to put the model; by default CUDA if there is one, else the CPU; not with ``device_map``.
        dtype: a torch dtype, its name, or "auto" for the checkpoint's own.
        layers, lam, sigma, alpha, attend_with, plain_prompt, highlight_prompt, adapter, max_pixels, fetch: see
            :func:`wrap`. ``attend_with`` may also be a checkpoint, which is then loaded with the same ``device`` and
            ``dtype``.
        **kwargs: for ``from_pretrained``.

    Raises:
        CheckpointError: when nothing can be loaded from there, or only by running the checkpoint's own code.
        UnsupportedModelError: when it is no image-text-to-text model, or no adapter serves it.
    """
    from transformers import AutoModelForImageTextToText, AutoProcessor

    if device is not None and kwargs.get("device_map") is not None:
        raise InvalidInputError(f"device={device!r} and device_map={kwargs['device_map']!r} exclude each other.")
    if kwargs.pop("trust_remote_code", False):
        raise CheckpointError(f"trust_remote_code=True: {_OWN_CODE}")
    place = _device(device)
    dtype = _dtype(dtype)
    _check_checkpoint(checkpoint)
    if isinstance(attend_with, str | Path):
        attend_with = load(attend_with, device=device, dtype=dtype)
    try:
        processor = AutoProcessor.from_pretrained(  # type: ignore[no-untyped-call]
            checkpoint, trust_remote_code=False
        )
        model: nn.Module = AutoModelForImageTextToText.from_pretrained(
            checkpoint, dtype=dtype, trust_remote_code=False, **{"use_safetensors": True, **kwargs}
        )
    except OSError as error:
        raise CheckpointError(f"no model can be loaded from {str(checkpoint)!r}: {error}{_remedy(error)}") from error
    except ImportError as error:
        raise CheckpointError(
            f"{str(checkpoint)!r} needs a package that is not installed: {error}{_remedy(error)}"
        ) from error
    except ValueError as error:
        if remedy := _remedy(error):  # without accelerate, device_map is a ValueError of Transformers
            raise CheckpointError(f"{str(checkpoint)!r} cannot be loaded like this: {error}{remedy}") from error
        if "trust_remote_code" in str(error):
            raise CheckpointError(f"{str(checkpoint)!r} brings code (auto_map) that it needs: {_OWN_CODE}") from error
        if "Unrecognized configuration class" not in str(error):
            raise
        raise UnsupportedModelError(
            f"{str(checkpoint)!r} is not an image-text-to-text model of Transformers. Load it with its own class and "
            "use vea.wrap(model, processor)."
        ) from error
    if kwargs.get("device_map") is None:
        model = model.to(place)
    return wrap(
        model.eval(),
        processor,
        layers,
        lam,
        sigma,
        alpha,
        attend_with,
        plain_prompt=plain_prompt,
        highlight_prompt=highlight_prompt,
        adapter=adapter,
        max_pixels=max_pixels,
        fetch=fetch,
    )


def _device(device: str | torch.device | None) -> torch.device:
    try:
        place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        raise InvalidInputError(f"device={device!r} is no device: {error}") from error
    if place.type == "cuda" and not torch.cuda.is_available():
        raise InvalidInputError(f"device={device!r}, but torch {torch.__version__} sees no CUDA device here; use cpu.")
    return place


def _dtype(dtype: torch.dtype | str) -> torch.dtype | str:
    found = getattr(torch, dtype, None) if isinstance(dtype, str) and dtype != "auto" else dtype
    if found != "auto" and not isinstance(found, torch.dtype):
        raise InvalidInputError(f'dtype={dtype!r} is no dtype of torch; use "auto", "float32" or "bfloat16".')
    return found


def _remedy(error: Exception) -> str:
    """Which packages an error of Transformers is about, where they are absent, and what brings them.

    Transformers' video processors need torchvision, and so do processors with one; not every message says so.
    """
    text = str(error).lower()
    asked = {"accelerate": "accelerate" in text, "torchvision": "torchvision" in text or "video" in text}
    missing = [name for name, named in asked.items() if named and importlib.util.find_spec(name) is None]
    return f"\n{' and '.join(missing)} not installed: pip install 'vea-sdk[hf]'" if missing else ""


def _check_checkpoint(checkpoint: str | Path) -> None:
    """Give a clear error for a folder without a model, before the hub is asked for a path."""
    folder = Path(checkpoint)
    if is_folder(folder) and not (folder / "config.json").is_file():
        raise CheckpointError(f"{str(folder)!r} is no checkpoint: it holds no config.json.")
    looks_like_path = isinstance(checkpoint, Path) or str(checkpoint).startswith((".", "/", "~"))
    if not is_folder(folder) and (looks_like_path or str(checkpoint).count("/") > 1):
        raise CheckpointError(f"there is no checkpoint folder {str(folder)!r}.")
