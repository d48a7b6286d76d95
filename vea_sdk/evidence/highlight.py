"""Step 4 of evidence: show it, by dimming everything else."""

from __future__ import annotations

from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from vea_sdk.errors import InvalidInputError
from vea_sdk.evidence.arrays import ArrayT, to_tensor
from vea_sdk.evidence.images import to_rgb


@overload
def highlight(image: Image.Image, pixel_map: NDArray[Any] | Tensor, alpha: float = 0.5) -> Image.Image: ...
@overload
def highlight(image: ArrayT, pixel_map: NDArray[Any] | Tensor, alpha: float = 0.5) -> ArrayT: ...
def highlight(image: Any, pixel_map: NDArray[Any] | Tensor, alpha: float = 0.5) -> Any:
    """pixel' = (α + (1 − α) · ẽ) · pixel, per channel, rounded to nearest (arXiv 2510.17771, Eq. 4).

    Args:
        image: a PIL picture, or an array [H, W], [H, W, channels] or [channels, H, W] of 1 or 3 channels,
            numpy or torch.
        pixel_map: [H, W] in [0, 1], see :func:`normalize`.
        alpha: α in [0, 1], the brightness that unattended regions keep. 1 changes nothing.

    Returns:
        A PIL picture in RGB for a PIL picture; else an array of the same kind, shape and dtype.

    Raises:
        InvalidInputError: map and picture differ in size, the map leaves [0, 1], or α does.
    """
    factor = brightness(pixel_map, alpha)
    if isinstance(image, Image.Image):
        check_size((image.height, image.width), factor)
        plane = factor.cpu().numpy()
        bands = [Image.fromarray(_dimmed(np.asarray(band), plane)) for band in to_rgb(image).split()]
        return Image.merge("RGB", bands)
    factors = factor.to(image.device) if isinstance(image, Tensor) else factor.cpu().numpy()
    size, shape = tuple(factor.shape), tuple(image.shape)
    if shape == size:
        return _dimmed(image, factors)
    # Channel by channel: a broadcast over an innermost axis of 3 is many times slower.
    if shape[:-1] == size and shape[-1] in (1, 3):
        return _stacked([_dimmed(image[..., c], factors) for c in range(shape[-1])], axis=-1)
    if shape[1:] == size and shape[0] in (1, 3):
        return _stacked([_dimmed(channel, factors) for channel in image], axis=0)
    raise InvalidInputError(
        f"A picture of shape {shape} and a map of {size} do not fit. The picture must be [H, W], [H, W, channels] or "
        "[channels, H, W] with 1 or 3 channels, and the map [H, W]."
    )


def brightness(pixel_map: NDArray[Any] | Tensor, alpha: float) -> Tensor:
    """α + (1 − α) · ẽ, [H, W]."""
    if not 0 <= alpha <= 1:
        raise InvalidInputError(f"alpha={alpha} must lie in [0, 1]: the brightness that unattended regions keep.")
    values = to_tensor("pixel_map", pixel_map, ndim=2)
    low, high = torch.stack(torch.aminmax(values)).tolist()
    if not (low >= 0 and high <= 1 + 1e-6):
        raise InvalidInputError(f"pixel_map spans {low:g} to {high:g}, not [0, 1]. Pass it through normalize() first.")
    return (values * (1 - alpha)).add_(alpha)


def _dimmed(channel: Any, factor: Any) -> Any:
    """channel · factor in the channel's dtype, [H, W]; numpy or torch."""
    product = channel * factor
    if isinstance(channel, Tensor):
        whole = not channel.is_floating_point()
        return (product.round_() if whole else product).to(channel.dtype)
    whole = not np.issubdtype(channel.dtype, np.floating)
    return (np.rint(product, out=product) if whole else product).astype(channel.dtype)


def _stacked(channels: list[Any], axis: int) -> Any:
    return torch.stack(channels, axis) if isinstance(channels[0], Tensor) else np.stack(channels, axis)


def check_size(image_hw: tuple[int, int], factor: Tensor) -> None:
    if image_hw != tuple(factor.shape):
        raise InvalidInputError(
            f"A picture of {image_hw[0]}x{image_hw[1]} pixels (height x width) and a map of {factor.shape[0]}x"
            f"{factor.shape[1]} do not fit. Build the map with image_hw={image_hw}, or resize one of them."
        )
