"""Geometry by perturbation: repaint one region of the picture, run the real image processor and the vision path, and
see which image tokens move. The centre of their movement must follow the region through the boxes that the layout
claims, in both axes; separators and the tokens of other pictures must not move.

Attention in the vision tower is silenced, because with random weights it spreads every change over all tokens.
Everything else (resizing, cropping, tiling, merging, window order, packing) is the real thing.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from tests.conformance.capture import Mismatch
from tests.conformance.tiny import Tiny
from vea_sdk import adapters
from vea_sdk.adapters import ImageLayout, PatchGrid
from vea_sdk.errors import GeometryError

N_REGIONS = 24
ROWS = 5  # prompts in a pass: towers that pack all pictures into one sequence take quadratic time
LEAST_CORRELATION = 0.97
SILENT = 1e-3  # movement of a separator, as a share of the largest movement


@dataclass
class GeometryResult:
    correlation_x: float = 1.0
    correlation_y: float = 1.0
    bias: float = 0.0  # mean distance from the claimed place, in tokens
    grids: list[str] = field(default_factory=list)


class Stop(Exception):  # noqa: N818 - a signal
    """Ends a forward pass where the decoder would begin."""


def check_geometry(tiny: Tiny) -> GeometryResult:
    """Raises Mismatch where image tokens do not move as the layout claims."""
    result = GeometryResult()
    for size in tiny.sizes:
        check_prompt(tiny, [backdrop(size)], 0, result)
    for options in tiny.options:
        with mock.patch.multiple(tiny.processor.image_processor, **options):
            check_prompt(tiny, [backdrop(tiny.sizes[0])], 0, result)
    if tiny.several:
        pictures = [backdrop((70, 110)), backdrop((99, 58), seed=1)]
        for target in (0, 1):
            check_prompt(tiny, pictures, target, result)
    return result


def check_prompt(tiny: Tiny, pictures: list[Image.Image], target: int, result: GeometryResult) -> None:
    picture = pictures[target]
    regions = random_regions((picture.height, picture.width))
    before, after = pictures[:target], pictures[target + 1 :]
    rows = [pictures, *([*before, repainted(picture, region), *after] for region in regions)]
    batches = [rows[start : start + ROWS] for start in range(0, len(rows), ROWS)]
    inputs = [tiny.inputs(batch, ["?"] * len(batch)) for batch in batches]
    sizes = [(one.height, one.width) for row in batches[0] for one in row]
    layouts = adapters.find(tiny.model).layouts(inputs[0], sizes, tiny.processor)[: len(pictures)]
    tokens = torch.cat([image_tokens(tiny, batch) for batch in inputs]).double().numpy()
    moved = np.linalg.norm(tokens[1:] - tokens[:1], axis=-1)

    layout = layouts[target]
    where = f"{picture.height}x{picture.width}"
    first = sum(earlier.n_tokens for earlier in layouts[:target])
    own = moved[:, first : first + layout.n_tokens]
    others = np.delete(moved, np.s_[first : first + layout.n_tokens], axis=1)
    if own.max() < 1e-4:
        raise Mismatch(f"{where}: no token moves")
    if others.max(initial=0) > SILENT * own.max():
        raise Mismatch(f"{where}: a token of another picture moves")
    separators = np.isnan(layout.token_boxes()).any(axis=1)
    if own[:, separators].max(initial=0) > SILENT * own.max():
        raise Mismatch(f"{where}: a separator moves")
    for grid in layout.grids:
        check_grid(where, grid, own, regions, tiny.largest_bias, result)
    result.grids.append(str(layout))


def check_grid(
    where: str, grid: PatchGrid, moved: np.ndarray, regions: np.ndarray, largest_bias: float, result: GeometryResult
) -> None:
    """Centres of movement against the centres of the regions, as far as the grid shows them."""
    boxes = grid.boxes().reshape(-1, 4)
    moved = moved[:, grid.token_index.ravel()]
    start, end = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    cell = (end - start) / (grid.cols, grid.rows)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    low, high = np.maximum(regions[:, :2], start), np.minimum(regions[:, 2:], end)
    shown = (high - low > cell).all(axis=1) & (moved.sum(axis=1) > 0)
    truth = (low + high)[shown] / 2
    found = moved[shown] @ centres / moved[shown].sum(axis=1, keepdims=True)
    for axis, name in ((0, "x"), (1, "y")):
        if shown.sum() < 5 or np.ptp(truth[:, axis]) <= cell[axis]:
            continue  # a grid too coarse or too small for these regions; others say something about it
        correlation = float(np.corrcoef(truth[:, axis], found[:, axis])[0, 1])
        bias = float((found - truth)[:, axis].mean() / cell[axis])
        what = f"{where}, grid {grid.rows}x{grid.cols}, {name}"
        if not correlation > LEAST_CORRELATION:
            raise Mismatch(f"{what}: correlation {correlation:.3f}")
        if abs(bias) > largest_bias:
            raise Mismatch(f"{what}: shifted by {bias:.2f} tokens")
        setattr(result, f"correlation_{name}", min(correlation, getattr(result, f"correlation_{name}")))
        result.bias = max(result.bias, abs(bias))


def image_tokens(tiny: Tiny, inputs: Any) -> Tensor:
    """What the decoder receives for the image tokens, [B, M, hidden], with the vision tower's attention silenced."""
    with silenced(tiny), torch.no_grad():
        if tiny.image_tokens is not None:
            return tiny.image_tokens(tiny.model, inputs)
        embeddings = decoder_arguments(tiny.model, inputs)["inputs_embeds"]
    keys = tiny.keys(inputs)
    return embeddings[torch.arange(len(keys))[:, None], keys]


def decoder_arguments(model: Any, inputs: Any, module: nn.Module | None = None) -> dict[str, Any]:
    """What the first pass hands to the decoder (or to ``module``), by name."""
    found: dict[str, Any] = {}

    def stop(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        found.update(inspect.signature(module.forward).bind_partial(*args, **kwargs).arguments)
        raise Stop

    handle = (module or adapters.find(model).decoder).register_forward_pre_hook(stop, with_kwargs=True)
    try:
        model(**inputs)
    except Stop:
        return found
    finally:
        handle.remove()
    raise Mismatch("the decoder did not run")


@contextmanager
def silenced(tiny: Tiny) -> Iterator[None]:
    """Attention outside the decoder gives zeros, except where ``tiny.quiet`` says that it pools."""
    decoder = set(adapters.find(tiny.model).decoder.modules())
    handles = []
    for path, module in tiny.model.named_modules():
        inner = any("attention" in type(child).__name__.lower() for child in module.modules() if child is not module)
        if "attention" not in type(module).__name__.lower() or inner:
            continue
        if module in decoder and "vision" not in path:  # some keep the tower in the module that runs the decoder
            continue
        if tiny.quiet and re.search(tiny.quiet, path):
            continue
        handles.append(module.register_forward_hook(lambda module, args, output: zeros(output)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def zeros(output: Any) -> Any:
    if isinstance(output, tuple):
        return (torch.zeros_like(output[0]), *output[1:])
    return torch.zeros_like(output)


def backdrop(size: tuple[int, int], seed: int = 0) -> Image.Image:
    """A picture without structure, (height, width)."""
    return Image.fromarray(np.random.default_rng(seed).integers(60, 120, (*size, 3), dtype=np.uint8))


def random_regions(size: tuple[int, int]) -> np.ndarray:
    """[N_REGIONS, 4] integer boxes, a fifth to two fifths of the picture in each direction."""
    rng = np.random.default_rng(1)
    extent = np.array(size[::-1])
    sides = np.maximum((extent * rng.uniform(0.2, 0.4, (N_REGIONS, 2))).astype(int), 2)
    start = (rng.uniform(0, 1, (N_REGIONS, 2)) * (extent - sides + 1)).astype(int)
    return np.concatenate([start, start + sides], axis=1)


def repainted(picture: Image.Image, region: np.ndarray) -> Image.Image:
    pixels = np.array(picture)
    x0, y0, x1, y1 = region
    pixels[y0:y1, x0:x1] = (255, 230, 240)
    return Image.fromarray(pixels)


def check_no_grid(tiny: Tiny) -> None:
    """Where tokens have no place, the layout says so in an error instead of guessing one."""
    inputs = tiny.inputs([[backdrop(tiny.sizes[0])]], ["?"])
    try:
        layouts: list[ImageLayout] = adapters.find(tiny.model).layouts(inputs, [tiny.sizes[0]], tiny.processor)
    except GeometryError:
        return
    raise Mismatch(f"a layout is claimed though there is no grid: {layouts}")
