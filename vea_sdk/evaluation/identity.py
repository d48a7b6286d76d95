"""What results depend on, so that those of one model are never taken for those of another."""

from __future__ import annotations

import hashlib
from importlib import metadata
from pathlib import Path
from typing import Any

from torch import nn

from vea_sdk.pipeline import VLM


def describe(vlm: VLM) -> dict[str, Any]:
    """The wrapped model and every option that its answers and evidence depend on, ready for JSON."""
    eye = {} if vlm.attend_with is None else {"attend_with": describe(vlm.attend_with)}
    name = getattr(vlm.model.config, "_name_or_path", "") or type(vlm.model).__name__
    return {
        "model": Path(name).name if Path(name).is_dir() else name,  # where a folder lies makes no difference
        "weights": fingerprint(vlm.model),
        "dtype": str(next(vlm.model.parameters()).dtype).removeprefix("torch."),
        "layers": list(vlm.layers),
        "lam": vlm.lam,
        "sigma": vlm.sigma,
        "alpha": vlm.alpha,
        "plain_prompt": vlm.plain_prompt,
        "highlight_prompt": vlm.highlight_prompt,
        "transformers": metadata.version("transformers"),
        **eye,
    }


def fingerprint(model: nn.Module) -> str:
    """A digest of every parameter's name, shape and first eight numbers: enough to tell two checkpoints apart.

    Weights that are elsewhere (offloaded, on the device "meta") count with their name and shape.
    """
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        digest.update(f"{name} {tuple(parameter.shape)}".encode())
        if not parameter.is_meta and parameter.numel():
            first = parameter.detach()[(0,) * (parameter.ndim - 1)] if parameter.ndim else parameter.detach().reshape(1)
            digest.update(repr(first[:8].float().tolist()).encode())
    return digest.hexdigest()[:16]
