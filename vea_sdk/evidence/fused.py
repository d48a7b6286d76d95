"""Highlighting what the image processor made of a picture, instead of the picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from vea_sdk.adapters.canvas import Canvas
from vea_sdk.adapters.options import image_option
from vea_sdk.errors import GeometryError

STEEPEST = 4.0
"""Grey levels by which highlighted white may change from one pixel of the processed picture to the next."""

_WITHIN_RANGE = (Image.Resampling.NEAREST, Image.Resampling.BOX, Image.Resampling.BILINEAR, Image.Resampling.HAMMING)
"""Filters without negative weights: their results stay between the values they mix."""


class Inexact(Exception):  # noqa: N818
    """Highlighting these values would not be the same as highlighting the picture; the message says why."""


def gain_maps(
    pixel_map: NDArray[np.float32], canvases: Sequence[Canvas], alpha: float, device: torch.device
) -> list[Tensor]:
    """g = α + (1 − α) · ẽ at the middle of every pixel of the canvases, [height, width] each.

    ``pixel_map``: ẽ of the original picture, in whose pixels the canvases' regions are given. Between pixels it is
    interpolated linearly; beyond the picture its border goes on.
    """
    gains = alpha + (1 - alpha) * torch.tensor(pixel_map, device=device)
    height, width = pixel_map.shape
    maps = []
    for canvas in canvases:
        x0, y0, x1, y1 = canvas.region
        rows, cols = canvas.size
        # grid_sample counts from −1 to 1, edge to edge.
        y = 2 * (y0 + (torch.arange(rows, device=device) + 0.5) * ((y1 - y0) / rows)) / height - 1
        x = 2 * (x0 + (torch.arange(cols, device=device) + 0.5) * ((x1 - x0) / cols)) / width - 1
        at = torch.stack([x.expand(rows, cols), y[:, None].expand(rows, cols)], dim=-1)
        maps.append(F.grid_sample(gains[None, None], at[None], padding_mode="border", align_corners=False)[0, 0])
    return maps


def steepness(gains: Sequence[Tensor]) -> float:
    """255 · the largest step of a gain between neighbouring pixels: grey levels of white."""
    steps = [g.diff(dim=d).abs().max() for g in gains for d in (0, 1) if g.shape[d] > 1]
    return 255 * float(torch.stack(steps).max()) if steps else 0.0


def highlight_tensor(pixel_values: Tensor, gains: Sequence[Sequence[Tensor]], processor: Any) -> Tensor:
    """pixel' = g · pixel, to whole grey levels, on normalised values: undo mean and deviation, multiply, redo.

    The slow way multiplies the picture and resizes the product; this multiplies the resized picture. They part where g
    changes within the reach of the resizing filter, and where a filter that overshoots at edges (bicubic, Lanczos) was
    cut off at white, since the darker product would not have been. Both are refused: g · 255 may change by at most
    ``STEEPEST`` from pixel to pixel, and a picture resized by such a filter may hold no white unless it is all white.
    What is left comes from the slow way's own three roundings to 8 bits (product, rows, columns): one grey level, and
    two in fewer than 1% of the values.

    Args:
        pixel_values: [pictures, channels, height, width], [rows, tiles, channels, height, width] (a picture per row,
            unused tiles last), or [patches, channels · frames · size²], floating.
        gains: of each picture, of each of its canvases in the order of ``pixel_values``: [height, width].
        processor: the processor that made ``pixel_values``, for its mean, deviation, filter and patch size.

    Raises:
        Inexact: outside these limits.
        GeometryError: the canvases are not those of ``pixel_values``.
    """
    steepest = max(steepness(of_picture) for of_picture in gains)
    if steepest > STEEPEST:
        raise Inexact(f"The map is too steep: {steepest:.1f} grey levels from pixel to pixel, above {STEEPEST:g}.")
    result = pixel_values.float().clone()
    flat = [gain for picture in gains for gain in picture]
    parts = _parts(result, [tuple(gain.shape) for gain in flat], [len(of_picture) for of_picture in gains], processor)
    # A part is [channels, frames, ...], and in the rest as many values as its gain.
    if [part[0, 0].numel() for part in parts] != [gain.numel() for gain in flat]:
        raise GeometryError(
            f"pixel_values of shape {tuple(pixel_values.shape)} do not hold the {len(flat)} canvases that the adapter "
            'names. Set sizes and crops on the processor, not in the call to it, or use highlight_on="picture".'
        )
    overshoots = image_option(processor, "do_resize") and image_option(processor, "resample") not in _WITHIN_RANGE
    mean, deviation = _normalisation(processor, result.device)
    for part, gain in zip(parts, flat, strict=True):
        m, d = (values.view(-1, *[1] * (part.ndim - 1)) for values in (mean, deviation))
        grey = part * d + m
        white = grey > 254.5
        if overshoots and bool(white.any()) and not bool(white.all()):
            raise Inexact("The picture holds white, where its resizing may have been cut off.")
        part.copy_(((grey * gain.view(part.shape[2:])).round_() - m) / d)
    return result.to(pixel_values.dtype)


def _parts(values: Tensor, sizes: list[tuple[int, ...]], per_picture: list[int], processor: Any) -> list[Tensor]:
    """The canvases of these sizes within ``values``, as views [channels, frames, ...]; empty where they do not fit."""
    if values.ndim == 4 and len(values) == len(sizes):
        return [part[:, None] for part in values]
    if values.ndim == 5 and len(values) == len(per_picture):
        return [tile[:, None] for row, n in zip(values, per_picture, strict=True) for tile in row[:n]]
    if values.ndim != 2:
        return []
    # Flattened patches, those that are merged into one token together.
    size, merge = image_option(processor, "patch_size"), image_option(processor, "merge_size")
    grids = [(height // (size * merge), width // (size * merge)) for height, width in sizes]
    counts = [rows * cols * merge * merge for rows, cols in grids]
    if sum(counts) != len(values):
        return []
    blocks = [
        patches.view(rows, cols, merge, merge, 3, -1, size, size)
        for (rows, cols), patches in zip(grids, torch.split(values, counts), strict=True)
    ]
    return [block.permute(4, 5, 0, 2, 6, 1, 3, 7) for block in blocks]


def _normalisation(processor: Any, device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and deviation of the channels in grey levels."""
    mean, deviation = [0.0] * 3, [1.0] * 3
    if image_option(processor, "do_normalize"):
        mean, deviation = image_option(processor, "image_mean"), image_option(processor, "image_std")
    white = 1 / image_option(processor, "rescale_factor") if image_option(processor, "do_rescale") else 1.0
    return white * torch.tensor(mean, device=device), white * torch.tensor(deviation, device=device)
