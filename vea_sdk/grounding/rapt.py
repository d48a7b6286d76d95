"""How much of its fair share of attention a section of the prompt gets."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vea_sdk.errors import InvalidInputError


def rapt(attention: ArrayLike, section: ArrayLike, prompt_mean: ArrayLike | None = None) -> NDArray[np.float64]:
    """RAPT = mean of ā over a section / mean of ā over the whole prompt (arXiv 2510.17771); 1.0 is an even share.

    Args:
        attention: [..., n] ā of n tokens, such as one row per layer.
        section: [n] bool, which of them belong to the section: image, evidence patches, ...
        prompt_mean: [...] mean of ā over all tokens of the prompt, where ``attention`` holds some of them only; such
            as ``Evidence.stats["mean"]`` beside ``Evidence.layer_scores``. By default that of ``attention``.

    Returns:
        [...] float64.

    Raises:
        InvalidInputError: the section is empty or of another length, the prompt's mean is not positive or of another
            shape, or the attention holds NaN.
    """
    values, chosen = np.asarray(attention, dtype=np.float64), np.asarray(section)
    if values.ndim == 0 or chosen.dtype != bool or chosen.shape != values.shape[-1:]:
        raise InvalidInputError(
            f"section must be bool, one for each of the last axis of attention {values.shape}; got {chosen.dtype} "
            f"{chosen.shape}."
        )
    if not chosen.any():
        raise InvalidInputError(f"the section holds none of the {len(chosen)} tokens, so it has no mean. Leave it out.")
    mean = values.mean(-1) if prompt_mean is None else np.asarray(prompt_mean, dtype=np.float64)
    if mean.shape != values.shape[:-1]:
        raise InvalidInputError(f"prompt_mean {mean.shape} must have the shape {values.shape[:-1]} of the rows.")
    if np.isnan(values).any() or not (mean > 0).all():
        raise InvalidInputError("attention holds NaN, or its mean over the prompt is not positive.")
    return np.asarray(values[..., chosen].mean(-1) / mean)
