"""Ways to spoil a picture that leave its size and its boxes as they were. Equal seeds give equal pictures."""

from __future__ import annotations

import numpy as np
from PIL import Image

from ..errors import InvalidInputError


def _unit(name: str, value: float) -> None:
    if not 0.0 <= value <= 1.0:
        raise InvalidInputError(f"{name} is {value}; give a number from 0 to 1")


def noise(image: Image.Image, seed: int, strength: float = 0.5) -> Image.Image:
    """pixel' = clip(pixel + 255·strength·n), n ~ N(0, 1) drawn per pixel and channel."""
    _unit("strength", strength)
    pixels = np.asarray(image.convert("RGB"), np.float32)
    drawn = np.random.default_rng(seed).standard_normal(pixels.shape, np.float32)
    return Image.fromarray(np.clip(pixels + 255 * strength * drawn, 0, 255).astype(np.uint8))


def low_contrast(image: Image.Image, keep: float = 0.15) -> Image.Image:
    """pixel' = mean + keep·(pixel − mean), mean over the whole picture; ``keep`` = 1 changes nothing."""
    _unit("keep", keep)
    pixels = np.asarray(image.convert("RGB"), np.float32)
    mean = pixels.mean()
    return Image.fromarray(np.clip(mean + keep * (pixels - mean), 0, 255).astype(np.uint8))


def mask(image: Image.Image, seed: int, share: float = 0.2, cell: int = 24) -> Image.Image:
    """Paint a random ``share`` of the cells of a grid (``cell`` pixels wide) in mid grey, values included."""
    _unit("share", share)
    pixels = np.array(image.convert("RGB"))
    rows, columns = -(-pixels.shape[0] // cell), -(-pixels.shape[1] // cell)
    hidden = np.random.default_rng(seed).random((rows, columns)) < share
    covered = hidden.repeat(cell, 0).repeat(cell, 1)[: pixels.shape[0], : pixels.shape[1]]
    pixels[covered] = 128
    return Image.fromarray(pixels)
