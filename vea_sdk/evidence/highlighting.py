"""Step 4 of evidence: show it, by dimming everything else."""

from __future__ import annotations

from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from vea_sdk.errors import InvalidInputError
from vea_sdk.evidence.arrays import ArrayT, device_of, like, to_numpy, to_tensor
from vea_sdk.evidence.compiled import empty, kernels_for, threads_for
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
    if not 0 <= alpha <= 1:
        raise InvalidInputError(f"alpha={alpha} must lie in [0, 1]: the brightness that unattended regions keep.")
    if isinstance(image, Image.Image):
        check_size((image.height, image.width), tuple(pixel_map.shape))
        return _highlighted(to_rgb(image), pixel_map, alpha)
    values = checked_map(pixel_map)
    size, shape = tuple(values.shape), tuple(image.shape)
    if shape == size:
        return _dimmed(image[..., None], values, alpha)[..., 0]
    if shape[:-1] == size and shape[-1] in (1, 3):
        return _dimmed(image, values, alpha)
    if shape[1:] == size and shape[0] in (1, 3):
        return _stacked([_dimmed(channel[..., None], values, alpha)[..., 0] for channel in image])
    raise InvalidInputError(
        f"A picture of shape {shape} and a map of {size} do not fit. The picture must be [H, W], [H, W, channels] or "
        "[channels, H, W] with 1 or 3 channels, and the map [H, W]."
    )


def checked_map(pixel_map: NDArray[Any] | Tensor) -> Tensor:
    """The map as a tensor [H, W], known to lie in [0, 1]."""
    values = to_tensor("pixel_map", pixel_map, ndim=2).detach()
    check_range(*torch.stack(torch.aminmax(values)).tolist())
    return values


def check_range(low: float, high: float) -> None:
    if not (low >= 0 and high <= 1 + 1e-6):
        raise InvalidInputError(f"pixel_map spans {low:g} to {high:g}, not [0, 1]. Pass it through normalize() first.")


def _highlighted(picture: Image.Image, pixel_map: NDArray[Any] | Tensor, alpha: float) -> Image.Image:
    """An RGB picture, dimmed in one pass from Pillow's memory to Pillow's memory where it lies in one piece."""
    weights = np.ascontiguousarray(to_numpy("pixel_map", pixel_map, ndim=2), dtype=np.float32)
    kernels = kernels_for(weights.dtype, torch.device("cpu"))
    try:
        pixels = picture.__arrow_c_array__()[1]
    except ValueError:  # a picture above 4 megapixels
        kernels = None
    if kernels is None:
        return Image.fromarray(_dimmed(np.asarray(picture), checked_map(weights), alpha))
    result = kernels.Block(4 * weights.size)
    target = np.frombuffer(result, np.uint8).reshape(*weights.shape, 4)
    check_range(*kernels.highlight_cpu(pixels, weights, alpha, target, threads_for(weights.size)))
    return Image.fromarrow(result, "RGB", picture.size)


def _dimmed(image: Any, values: Tensor, alpha: float) -> Any:
    """(α + (1 − α) · values) · image for an array [H, W, channels], in its dtype; numpy or torch."""
    is_tensor = isinstance(image, Tensor)
    if image.dtype in (np.uint8, torch.uint8) and device_of(image).type == "cpu":
        kernels = kernels_for(np.float32, torch.device("cpu"))
        if kernels is not None:
            pixels = np.ascontiguousarray(image)
            result = empty(kernels, pixels.shape, np.uint8)
            gains = np.ascontiguousarray(values.cpu().float())
            kernels.highlight_cpu(pixels, gains, alpha, result, threads_for(gains.size))
            return like(result, image)
    weights: Any = values.to(image.device) if is_tensor else values.cpu().numpy()
    factor = weights * (1 - alpha) + alpha
    # Channel by channel: a broadcast over an innermost axis of 3 is many times slower.
    return _stacked([_product(image[..., c], factor) for c in range(image.shape[-1])], axis=-1)


def _product(channel: Any, factor: Any) -> Any:
    """channel · factor in the channel's dtype, rounded to nearest for whole numbers."""
    product = channel * factor
    if isinstance(channel, Tensor):
        return (product if channel.is_floating_point() else product.round_()).to(channel.dtype)
    return (product if channel.dtype.kind == "f" else np.rint(product)).astype(channel.dtype)


def _stacked(channels: list[Any], axis: int = 0) -> Any:
    return torch.stack(channels, axis) if isinstance(channels[0], Tensor) else np.stack(channels, axis)


def check_size(image_hw: tuple[int, int], map_hw: tuple[int, ...]) -> None:
    if len(map_hw) == 2 and image_hw != map_hw:
        raise InvalidInputError(
            f"A picture of {image_hw[0]}x{image_hw[1]} pixels (height x width) and a map of {map_hw[0]}x{map_hw[1]} do "
            f"not fit. Build the map with image_hw={image_hw}, or resize one of them."
        )
