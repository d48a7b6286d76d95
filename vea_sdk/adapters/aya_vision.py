"""Aya Vision: tiles and a thumbnail, each after a text that names it."""

from __future__ import annotations

from typing import Any

from vea_sdk.adapters.internvl import InternVLAdapter


class AyaVisionAdapter(InternVLAdapter):
    """Tiles are arranged as in InternVL; a pixel shuffle makes one token of downsample_factor² patches."""

    model_types = ("aya_vision",)

    def tile_tokens(self, processor: Any) -> tuple[int, int]:
        height, width = self.tile_size(processor)
        pixels = self.config.vision_config.patch_size * self.config.downsample_factor
        return height // pixels, width // pixels
