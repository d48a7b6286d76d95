"""Ways to spoil a picture that leave its size and its boxes as they were. Equal seeds give equal pictures."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

from ..errors import InvalidInputError

Degradation = Callable[[Image.Image, int], Image.Image]
"""(picture, seed) → picture of the same size."""


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


def resolution(image: Image.Image, keep: float = 0.5) -> Image.Image:
    """Shrink both sides to ``keep`` of their length and enlarge again; ``keep`` = 1 changes nothing."""
    _unit("keep", keep)
    small = max(1, round(keep * image.width)), max(1, round(keep * image.height))
    return image.convert("RGB").resize(small, Image.Resampling.BICUBIC).resize(image.size, Image.Resampling.BICUBIC)


_BY_NAME: dict[str, Callable[[Image.Image, int, float], Image.Image]] = {
    "noise": lambda image, seed, level: noise(image, seed, level),
    "resolution": lambda image, seed, level: resolution(image, level),
    "mask": lambda image, seed, level: mask(image, seed, level),
    "contrast": lambda image, seed, level: low_contrast(image, level),
}


def degradation(text: str) -> Degradation:
    """A degradation from its name and level: ``noise:0.3``, ``resolution:0.5``, ``mask:0.2``, ``contrast:0.15``.

    Raises InvalidInputError for an unknown name, or a level that is no number from 0 to 1.
    """
    name, _, level = text.partition(":")
    try:
        how, strength = _BY_NAME[name], float(level)
    except (KeyError, ValueError) as error:
        raise InvalidInputError(
            f"{text!r} is no degradation: give one of {', '.join(_BY_NAME)} and a level from 0 to 1, such as noise:0.3."
        ) from error
    _unit(name, strength)
    return lambda image, seed: how(image, seed, strength)
