"""Geometry by perturbation: repaint one region of the original picture, run the real image processor and the
vision path, and see which image tokens move. The layout must have said so.

The vision towers' attention is switched off, so that a token depends on its own pixels only; everything else
(resizing, cropping, padding, tiling, merging, packing, the order in the prompt) is the real thing.
"""

from __future__ import annotations

import copy
import math
import re
from fractions import Fraction
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from families import FAMILIES, TinyFamily, llava_processor
from PIL import Image
from transformers.models.llava_next.modeling_llava_next import unpad_image

from vea_sdk import adapters
from vea_sdk.adapters import ImageLayout, PatchGrid
from vea_sdk.adapters.canvas import Canvas
from vea_sdk.adapters.gemma3 import pan_and_scan
from vea_sdk.adapters.llava_next import fit_and_pad, padding_tokens

Size = tuple[int, int]  # (height, width)

N_REGIONS = 24
# Side of one token on the canvas that the vision tower sees, in pixels.
TOKEN_PIXELS = {"llava": 6, "llava_next": 6, "qwen2_vl": 8, "qwen2_5_vl": 8, "gemma3": 8, "internvl": 8}
VISION_ATTENTION_OUTPUT = re.compile(r"(attn|attention)\.(out_proj|proj|projection_layer)$")


class ReachedDecoderError(Exception):
    """Carries the decoder's input out of a forward pass that need not go on."""

    def __init__(self, embeddings: torch.Tensor) -> None:
        self.embeddings = embeddings


@cache
def local_family(name: str) -> TinyFamily:
    """The family with its vision tower's attention silenced and its decoder cut off."""
    family = FAMILIES[name]()
    model = copy.deepcopy(family.model)
    outputs = [
        module
        for path, module in model.named_modules()
        if "language_model" not in path and VISION_ATTENTION_OUTPUT.search(path)
    ]
    assert len(outputs) == 2, "each tiny vision tower has two attention layers"
    for module in outputs:
        torch.nn.init.zeros_(module.weight)

    def stop(module: Any, args: Any, kwargs: Any) -> None:
        raise ReachedDecoderError(kwargs["inputs_embeds"])

    model.get_decoder().register_forward_pre_hook(stop, with_kwargs=True)
    return TinyFamily(family.name, model, family.processor, family.image_token_id)


def image_tokens(family: TinyFamily, inputs: Any) -> np.ndarray:
    """What the decoder receives at the image positions: [batch, image tokens, hidden]."""
    with torch.no_grad(), pytest.raises(ReachedDecoderError) as reached:
        family.model(**inputs)
    positions = adapters.find(family.model).image_positions(inputs["input_ids"])
    assert (positions >= 0).all()
    rows = torch.arange(len(positions))[:, None]
    return reached.value.embeddings[rows, positions].double().numpy()


def noise_picture(size: Size, seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(60, 120, (*size, 3), dtype=np.uint8))


def random_regions(size: Size) -> np.ndarray:
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


def movements(
    family: TinyFamily, pictures: list[Image.Image], target: int, regions: np.ndarray, **options: Any
) -> tuple[np.ndarray, list[ImageLayout]]:
    """How far each image token moves for each region repainted in picture ``target``: [regions, tokens]."""
    rows = [pictures]
    for region in regions:
        rows.append(list(pictures))
        rows[-1][target] = repainted(pictures[target], region)
    inputs = family.inputs(rows, ["?"] * len(rows), **options)
    sizes = [(picture.height, picture.width) for row in rows for picture in row]
    layouts = adapters.find(family.model).layouts(inputs, sizes, family.processor)
    tokens = image_tokens(family, inputs)
    return np.linalg.norm(tokens[1:] - tokens[:1], axis=-1), layouts[: len(pictures)]


def check_grid(grid: PatchGrid, moved: np.ndarray, regions: np.ndarray, token_pixels: int) -> int:
    """Exactly the tokens move whose box the region touches, and the centre of movement follows the region.

    Returns how many centres were compared, x and y counted apart.
    """
    boxes = grid.boxes().reshape(-1, 4)
    moved = moved[:, grid.token_index.ravel()]
    start, end = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    cell = (end - start) / (grid.cols, grid.rows)
    # A bicubic resize mixes pixels at most two pixels apart, counted on the coarser of the two rasters.
    margin = 2 * np.maximum(cell / token_pixels, 1) + 1e-6
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    truth: tuple[list[float], list[float]] = ([], [])
    found: tuple[list[float], list[float]] = ([], [])
    for region, movement in zip(regions, moved, strict=True):
        touched = ((boxes[:, :2] < region[2:] + margin) & (boxes[:, 2:] > region[:2] - margin)).all(axis=1)
        inside = ((boxes[:, :2] >= region[:2] + margin) & (boxes[:, 2:] <= region[2:] - margin)).all(axis=1)
        assert movement[~touched].max(initial=0) < 1e-5, "a token moved whose box was left alone"
        assert movement[inside].min(initial=1) > 1e-2, "a token stood still whose box was repainted"
        low, high = np.maximum(region[:2], start), np.minimum(region[2:], end)
        for axis in (0, 1):
            if movement.sum() > 0 and high[axis] - low[axis] > cell[axis]:
                truth[axis].append((low[axis] + high[axis]) / 2)
                found[axis].append(movement @ centres[:, axis] / movement.sum())
    for axis in (0, 1):
        if len(truth[axis]) > 2 and np.ptp(truth[axis]) > cell[axis]:
            assert np.corrcoef(truth[axis], found[axis])[0, 1] > 0.97
    return len(truth[0]) + len(truth[1])


def check_picture(family: TinyFamily, pictures: list[Image.Image], target: int = 0, **options: Any) -> ImageLayout:
    """Perturb picture ``target`` of a prompt; returns its layout."""
    picture = pictures[target]
    regions = random_regions((picture.height, picture.width))
    moved, layouts = movements(family, pictures, target, regions, **options)
    layout = layouts[target]
    assert layout.original_size == (picture.height, picture.width)

    first = sum(earlier.n_tokens for earlier in layouts[:target])
    own = moved[:, first : first + layout.n_tokens]
    others = np.delete(moved, np.s_[first : first + layout.n_tokens], axis=1)
    assert others.max(initial=0) < 1e-5, "a token of another picture moved"
    separators = np.isnan(layout.token_boxes()).any(axis=1)
    assert own[:, separators].max(initial=0) < 1e-5, "a separator moved"

    compared = [check_grid(grid, own, regions, TOKEN_PIXELS[family.name]) for grid in layout.grids]
    assert compared[0] >= N_REGIONS // 2, "too few regions say anything about the first grid"
    return layout


SIZES = [(60, 100), (101, 67), (90, 90), (47, 133)]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", FAMILIES)
def test_one_picture(name: str, size: Size) -> None:
    check_picture(local_family(name), [noise_picture(size)])


@pytest.mark.parametrize("target", [0, 1])
@pytest.mark.parametrize("name", FAMILIES)
def test_two_pictures_of_different_size(name: str, target: int) -> None:
    check_picture(local_family(name), [noise_picture((70, 110)), noise_picture((99, 58), seed=1)], target)


@pytest.mark.parametrize("name", ["llava", "gemma3"])
def test_larger_than_the_canvas(name: str) -> None:
    check_picture(local_family(name), [noise_picture((301, 417))])


# --- LLaVA -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [*SIZES, (200, 31)], ids=str)
def test_llava_padded_to_a_square(size: Size) -> None:
    family = local_family("llava")
    padded = TinyFamily("llava", family.model, llava_processor(pad=True), family.image_token_id)
    layout = check_picture(padded, [noise_picture(size)])
    x0, y0, x1, y1 = layout.input_region
    assert x1 - x0 == y1 - y0 == max(size)


def test_llava_keeps_the_class_token_with_strategy_full() -> None:
    family = local_family("llava")
    model = copy.deepcopy(family.model)
    model.config.vision_feature_select_strategy = "full"
    full = TinyFamily("llava", model, llava_processor(strategy="full"), family.image_token_id)
    layout = check_picture(full, [noise_picture((60, 100))])
    assert layout.n_tokens == 65
    assert np.isnan(layout.token_boxes()[0]).all()


# --- LLaVA-NeXT --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "mosaic"),
    [
        ((45, 95), (48, 96)),
        ((95, 45), (96, 48)),
        ((88, 120), (96, 96)),
        ((40, 141), (48, 144)),
        ((160, 37), (144, 48)),
    ],
    ids=str,
)
def test_llava_next_mosaics(size: Size, mosaic: Size) -> None:
    layout = check_picture(local_family("llava_next"), [noise_picture(size)])
    assert layout.input_size == mosaic
    tiles, base = layout.grids
    assert (base.rows, base.cols) == (8, 8)
    n_separators = int(np.isnan(layout.token_boxes()).any(axis=1).sum())
    assert n_separators == tiles.rows, "one line end per row of the mosaic"


@pytest.mark.parametrize("mosaic", [(48, 144), (144, 48), (96, 96)], ids=str)
def test_llava_next_pads_the_odd_pixel_behind(mosaic: Size) -> None:
    """Where the processor puts a white picture into the black mosaic."""
    processor = local_family("llava_next").processor.image_processor
    plain = {"do_rescale": False, "do_normalize": False, "image_grid_pinpoints": [list(mosaic)], "return_tensors": "np"}
    odd = 0
    for height, width in [(h, w) for h in range(31, 121, 8) for w in range(31, 121, 9)]:
        tiles = processor(Image.new("RGB", (width, height), "white"), **plain)["pixel_values"][0, 1:, 0]
        side = tiles.shape[-1]
        grid = tiles.reshape(mosaic[0] // side, mosaic[1] // side, side, side)
        painted = grid.swapaxes(1, 2).reshape(mosaic) > 0
        rows, cols = np.flatnonzero(painted.any(1)), np.flatnonzero(painted.any(0))
        y, x = height / len(rows), width / len(cols)  # pixels of the picture per pixel of the mosaic
        expected = np.array([-cols[0] * x, -rows[0] * y, (mosaic[1] - cols[0]) * x, (mosaic[0] - rows[0]) * y])
        placed = fit_and_pad(Canvas.of((height, width)), *mosaic)
        np.testing.assert_allclose(placed.region, expected, rtol=0, atol=1e-9)
        odd += (mosaic[0] - len(rows)) % 2 + (mosaic[1] - len(cols)) % 2
    assert odd > 20


@pytest.mark.parametrize("tall", [False, True])
def test_llava_next_drops_the_padding_that_the_model_drops(tall: bool) -> None:
    """Also where a whole number of tokens is left, of which the division falls short by its last bit."""
    a_bit_short = 0
    for long, short in product(range(8, 400, 8), range(5, 250, 5)):
        height, width = (long, short) if tall else (short, long)
        for rows, cols in ((24, 24), (48, 48), (24, 72) if tall else (72, 24)):
            mosaic = torch.arange(rows * cols).view(1, rows, cols)
            cut_rows, cut_cols = padding_tokens((height, width), rows, cols)
            ours = mosaic[:, cut_rows : rows - cut_rows, cut_cols : cols - cut_cols]
            assert torch.equal(unpad_image(mosaic, (height, width)), ours)
            room, across = (cols, rows) if tall else (rows, cols)
            left = Fraction(short * across, long)
            a_bit_short += left < room and (room - left) % 2 == 1 and short * (across / long) < left
    assert a_bit_short > 0


# --- Gemma 3 -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "n_crops"), [((300, 640), 2), ((1001, 290), 3), ((320, 800), 3), ((300, 310), 0)], ids=str
)
def test_gemma3_pan_and_scan(size: Size, n_crops: int) -> None:
    layout = check_picture(local_family("gemma3"), [noise_picture(size)], do_pan_and_scan=True)
    assert len(layout.grids) == 1 + n_crops


@pytest.mark.parametrize("size", [(320, 800), (1031, 300)], ids=str)
def test_gemma3_crops_tile_the_picture(size: Size) -> None:
    """The last one is shorter where the length does not divide, and overhangs nowhere."""
    crops = pan_and_scan(size, local_family("gemma3").processor)
    long, axis = max(size), int(size[1] > size[0])
    ends = [0, *(crop.region[3 - axis] for crop in crops)]
    assert ends == [0, math.ceil(long / 3), 2 * math.ceil(long / 3), long]
    assert [crop.size[axis] for crop in crops] == np.diff(ends).tolist()


@pytest.mark.parametrize("ratio", [1.19, 1.2, 1.5, 2.49, 2.5, 2.51, 3.5, 4.5, 5.0])
def test_gemma3_cuts_as_many_crops_as_its_processor(ratio: float) -> None:
    """Halves are rounded up there, to an even or an odd number."""
    processor = local_family("gemma3").processor
    published: dict[str, Any] = {
        "pan_and_scan_min_crop_size": 256,
        "pan_and_scan_max_num_crops": 4,
        "pan_and_scan_min_ratio_to_activate": 1.2,
    }
    for short, long in ((400, round(400 * ratio)), (257, math.ceil(257 * ratio)), (100, round(100 * ratio))):
        for size in ((short, long), (long, short)):
            picture = Image.new("RGB", size[::-1])
            (expected,) = processor.image_processor(picture, do_pan_and_scan=True, **published)["num_crops"]
            assert len(pan_and_scan(size, processor)) == int(expected)


def test_gemma3_pan_and_scan_of_several_pictures() -> None:
    pictures = [noise_picture((100, 90)), noise_picture((300, 600), seed=1)]
    layout = check_picture(local_family("gemma3"), pictures, 1, do_pan_and_scan=True)
    assert len(layout.grids) == 3


# --- InternVL ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "tiles"),
    [((48, 48), (1, 1)), ((60, 120), (1, 2)), ((130, 66), (2, 1)), ((50, 150), (1, 3)), ((97, 141), (2, 3))],
    ids=str,
)
def test_internvl_tiles(size: Size, tiles: tuple[int, int]) -> None:
    layout = check_picture(local_family("internvl"), [noise_picture(size)])
    assert layout.grid_size == (6 * tiles[0], 6 * tiles[1])
    assert len(layout.grids) == (1 if tiles == (1, 1) else 2)


def test_internvl_without_tiling() -> None:
    layout = check_picture(local_family("internvl"), [noise_picture((60, 120))], crop_to_patches=False)
    assert layout.grid_size == (6, 6)
    assert len(layout.grids) == 1
