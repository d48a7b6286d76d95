"""Llama 3.2 Vision: every few layers cross-attend to the tiles of the pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vea_sdk.adapters.canvas import Canvas
from vea_sdk.adapters.cross import CrossAttentionAdapter
from vea_sdk.adapters.geometry import ImageLayout
from vea_sdk.adapters.modules import decoder_layers
from vea_sdk.adapters.options import size_option
from vea_sdk.errors import ImageTokenError


class MllamaAdapter(CrossAttentionAdapter):
    """The picture is scaled to fit an arrangement of tiles, its aspect ratio kept, and padded at the right and the
    bottom. The keys hold room for the most tiles of the most pictures, each a class token, which stands for no pixel,
    and its patches; unused tiles are no image tokens."""

    model_types = ("mllama",)

    def attention_modules(self) -> dict[int, nn.Module]:
        found = {i: getattr(block, "cross_attn", None) for i, block in enumerate(decoder_layers(self.model))}
        return {i: module for i, module in found.items() if isinstance(module, nn.Module)}

    def vision_positions(self, fed: Mapping[str, Any]) -> Tensor:
        used = fed.get("aspect_ratio_mask")
        if used is None:
            raise ImageTokenError(f"{self.name}: the prompt holds no picture. Give the processor one.")
        ids = fed["aspect_ratio_ids"]
        used = used.bool() & (ids > 0)[..., None]  # [B, pictures, tiles]; a missing picture has id 0
        tokens = used.flatten(1).repeat_interleave(self._tile_side**2 + 1, dim=1)
        rows = [row.nonzero().flatten() for row in tokens]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1)

    @property
    def _tile_side(self) -> int:
        """Patches along a tile's side."""
        vision = self.config.vision_config
        return int(vision.image_size // vision.patch_size)

    def lay_out(
        self, inputs: Mapping[str, Any], image_sizes: Sequence[tuple[int, int]], processor: Any
    ) -> list[ImageLayout]:
        ids = [int(one) for row in inputs["aspect_ratio_ids"] for one in row if one > 0]
        self.check_pictures(len(image_sizes), len(ids))
        arrangements = self.config.vision_config.supported_aspect_ratios
        tile = size_option(processor, "size")["height"]
        return [self._layout(size, arrangements[i - 1], tile) for size, i in zip(image_sizes, ids, strict=True)]

    def _layout(self, original_size: tuple[int, int], tiles: Sequence[int], tile: int) -> ImageLayout:
        from transformers.models.mllama.image_processing_pil_mllama import get_image_size_fit_to_canvas

        tile_rows, tile_cols = tiles
        height, width = tile_rows * tile, tile_cols * tile
        fitted = get_image_size_fit_to_canvas(*original_size, height, width, tile)
        canvas = Canvas.of(original_size).resized(*fitted).cropped(0, 0, height, width)
        side = self._tile_side
        tokens = np.arange(tile_rows * tile_cols * (side**2 + 1)).reshape(tile_rows, tile_cols, -1)
        patches = tokens[..., 1:].reshape(tile_rows, tile_cols, side, side).swapaxes(1, 2)
        grid = canvas.grid(patches.reshape(tile_rows * side, tile_cols * side))
        return ImageLayout(original_size, canvas.size, canvas.region, tokens.size, (grid,))
