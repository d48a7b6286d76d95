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

_ROWS = 64


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
    if not 0 <= alpha <= 1:
        raise InvalidInputError(f"alpha={alpha} must lie in [0, 1]: the brightness that unattended regions keep.")
    values = checked_map(pixel_map)
    if isinstance(image, Image.Image):
        check_size((image.height, image.width), values)
        planes = [np.asarray(band) for band in to_rgb(image).split()]
        return Image.merge("RGB", [Image.fromarray(plane) for plane in _dimmed(planes, values.cpu().numpy(), alpha)])
    weights = values.to(image.device) if isinstance(image, Tensor) else values.cpu().numpy()
    size, shape = tuple(values.shape), tuple(image.shape)
    if shape == size:
        return _dimmed([image], weights, alpha)[0]
    # Channel by channel: a broadcast over an innermost axis of 3 is many times slower.
    if shape[:-1] == size and shape[-1] in (1, 3):
        return _stacked(_dimmed([image[..., c] for c in range(shape[-1])], weights, alpha), axis=-1)
    if shape[1:] == size and shape[0] in (1, 3):
        return _stacked(_dimmed(list(image), weights, alpha), axis=0)
    raise InvalidInputError(
        f"A picture of shape {shape} and a map of {size} do not fit. The picture must be [H, W], [H, W, channels] or "
        "[channels, H, W] with 1 or 3 channels, and the map [H, W]."
    )


def checked_map(pixel_map: NDArray[Any] | Tensor) -> Tensor:
    """The map as a tensor [H, W], known to lie in [0, 1]."""
    values = to_tensor("pixel_map", pixel_map, ndim=2).detach()
    low, high = torch.stack(torch.aminmax(values)).tolist()
    if not (low >= 0 and high <= 1 + 1e-6):
        raise InvalidInputError(f"pixel_map spans {low:g} to {high:g}, not [0, 1]. Pass it through normalize() first.")
    return values


def _dimmed(channels: list[Any], weights: Any, alpha: float) -> list[Any]:
    """(α + (1 − α) · weights) · channel for each channel [H, W], in the channels' dtype; numpy or torch."""
    results = [torch.empty_like(c) if isinstance(c, Tensor) else np.empty_like(c) for c in channels]
    # On the CPU in bands that stay in its cache; a GPU prefers few launches.
    step = len(weights) if isinstance(weights, Tensor) and weights.is_cuda else _ROWS
    for y in range(0, len(weights), step):
        factor = weights[y : y + step] * (1 - alpha) + alpha
        for channel, result in zip(channels, results, strict=True):
            result[y : y + step] = _product(channel[y : y + step], factor)
    return results


def _product(channel: Any, factor: Any) -> Any:
    """channel · factor, whole numbers for a channel of whole numbers."""
    if isinstance(channel, Tensor):
        product = channel * factor
        return product if channel.is_floating_point() else product.round_()
    product = channel.astype(np.result_type(channel, factor) if channel.dtype.kind == "f" else factor.dtype)
    product *= factor
    return product if channel.dtype.kind == "f" else np.rint(product, out=product)


def _stacked(channels: list[Any], axis: int) -> Any:
    return torch.stack(channels, axis) if isinstance(channels[0], Tensor) else np.stack(channels, axis)


def check_size(image_hw: tuple[int, int], pixel_map: Tensor) -> None:
    if image_hw != tuple(pixel_map.shape):
        raise InvalidInputError(
            f"A picture of {image_hw[0]}x{image_hw[1]} pixels (height x width) and a map of {pixel_map.shape[0]}x"
            f"{pixel_map.shape[1]} do not fit. Build the map with image_hw={image_hw}, or resize one of them."
        )
