"""Tiles whose number or size the processor decides picture by picture."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from vea_sdk.adapters.canvas import Canvas
from vea_sdk.adapters.minicpm import MiniCPMVAdapter, slice_grids
from vea_sdk.errors import GeometryError

IMAGE = 7


class Model(nn.Module):
    config = SimpleNamespace(model_type="minicpmv4_6", image_token_id=IMAGE)


def processor(grid: list[int] | None) -> Any:
    """What the adapter reads: settings, and the image processor's rule for the number of slices."""
    rule = SimpleNamespace(
        downsample_mode="16x",
        slice_mode=True,
        max_slice_nums=9,
        scale_resolution=48,
        get_sliced_grid=lambda size, most, resolution: grid,
    )
    return SimpleNamespace(image_processor=rule)


def inputs(patches: list[list[int]]) -> dict[str, torch.Tensor]:
    n_tokens = sum(rows * cols // 16 for rows, cols in patches)
    return {"target_sizes": torch.tensor(patches), "input_ids": torch.full((1, n_tokens), IMAGE)}


def test_slices_of_one_size_make_a_mosaic() -> None:
    (layout,) = MiniCPMVAdapter(Model()).layouts(inputs([[8, 12], *[[8, 8]] * 6]), [(60, 90)], processor([2, 3]))
    assert [grid.token_index.shape for grid in layout.grids] == [(4, 6), (2, 3)]
    # The overview is first: the mosaic's second row of slices begins after it and three slices of four tokens.
    assert layout.grids[0].token_index[2, 0] == 6 + 3 * 4
    assert layout.grids[0].region == layout.grids[1].region == (0, 0, 90, 60)


def test_slices_of_their_own_size_are_grids_of_their_own() -> None:
    picture = Canvas.of((60, 90))
    tokens = [(2, 3), (4, 4), (1, 2), (2, 2), (3, 3), (5, 5)]
    grids = slice_grids(picture, (2, 3), tokens, first_token=6)
    assert [grid.token_index.shape for grid in grids] == tokens
    assert [grid.region for grid in grids[:4]] == [(0, 0, 30, 30), (30, 0, 60, 30), (60, 0, 90, 30), (0, 30, 30, 60)]
    every = np.concatenate([grid.token_index.ravel() for grid in grids])
    assert np.array_equal(every, 6 + np.arange(len(every)))


def test_another_number_of_tiles_than_the_settings_lead_to_is_refused() -> None:
    with pytest.raises(GeometryError, match=r"minicpmv4_6.*lead to 7 tiles.*holds 3.*original pictures"):
        MiniCPMVAdapter(Model()).layouts(inputs([[8, 12], [8, 8], [8, 8]]), [(60, 90)], processor([2, 3]))
