"""Ways to spoil a picture that leave its size and its boxes as they were. Equal seeds give equal pictures."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
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


def glare(image: Image.Image, seed: int, keep: float = 0.15) -> Image.Image:
    """A bright spot, in which ``keep`` of the contrast is left.

    pixel' = 235 + (pixel − 235)·(1 − (1 − keep)·exp(−((x − cx) / 0.45)⁴ − ((y − cy) / 0.3)⁴)), x and y from 0 to 1 over
    the picture, (cx, cy) drawn uniformly from 0.2 to 0.8.
    """
    _unit("keep", keep)
    pixels, x, y = _places(image)
    cx, cy = np.random.default_rng(seed).uniform(0.2, 0.8, 2)
    spot = np.exp(-(((x - cx) / 0.45) ** 4) - ((y - cy) / 0.3) ** 4)
    return _picture(235 + (pixels - 235) * (1 - (1 - keep) * spot)[..., None])


def shadow(image: Image.Image, seed: int, keep: float = 0.1) -> Image.Image:
    """A shadow with a soft edge, in which ``keep`` of the light is left.

    pixel' = pixel·(keep + (1 − keep) / (1 + exp(−d / 0.04))), d = x·cos θ + y·sin θ + u, x and y from −0.5 to 0.5 over
    the picture, θ drawn uniformly from 0 to 2π and u from −0.15 to 0.15.
    """
    _unit("keep", keep)
    pixels, x, y = _places(image)
    rng = np.random.default_rng(seed)
    angle, moved = rng.uniform(0, 2 * np.pi), rng.uniform(-0.15, 0.15)
    distance = (x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle) + moved
    return _picture(pixels * (keep + (1 - keep) / (1 + np.exp(-distance / 0.04)))[..., None])


def _places(image: Image.Image) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """The pixels [H, W, 3], and x [1, W] and y [H, 1] of their middles, from 0 to 1 over the picture."""
    pixels = np.asarray(image.convert("RGB"), np.float64)
    height, width = pixels.shape[:2]
    return pixels, ((np.arange(width) + 0.5) / width)[None], ((np.arange(height) + 0.5) / height)[:, None]


def _picture(pixels: NDArray[np.float64]) -> Image.Image:
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))


_BY_NAME: dict[str, Callable[[Image.Image, int, float], Image.Image]] = {
    "noise": lambda image, seed, level: noise(image, seed, level),
    "resolution": lambda image, seed, level: resolution(image, level),
    "mask": lambda image, seed, level: mask(image, seed, level),
    "contrast": lambda image, seed, level: low_contrast(image, level),
    "glare": lambda image, seed, level: glare(image, seed, level),
    "shadow": lambda image, seed, level: shadow(image, seed, level),
}


def degradation(text: str) -> Degradation:
    """A degradation from its name and level: ``noise:0.3``, ``resolution:0.5``, ``mask:0.2``, ``contrast:0.15``,
    ``glare:0.15``, ``shadow:0.1``.

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
