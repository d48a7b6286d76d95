"""Granite's vision models: Granite for Docling (tiles and a thumbnail) and Granite 4 Vision (as LLaVA-NeXT)."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

from vea_sdk.adapters.internvl import InternVLAdapter
from vea_sdk.adapters.llava_next import LlavaNextAdapter


class GraniteDoclingAdapter(InternVLAdapter):
    """A tile has ``image_seq_len`` tokens, four times as many when the processor takes its fine route."""

    model_types = ("granite_docling",)

    def tile_tokens(self, processor: Any) -> tuple[int, int]:
        per_side = math.isqrt(processor.image_seq_len)
        per_side *= 2 if processor.image_processor.fine_route else 1
        return per_side, per_side

    def arrangement(self, original_size: tuple[int, int], processor: Any) -> tuple[int, int]:
        rows, cols = processor.image_processor.get_tile_grid(*original_size)
        return rows, cols


class Granite4VisionAdapter(LlavaNextAdapter):
    """Queries of a Q-Former that sees one window of patches each, put back where the windows were."""

    model_types = ("granite4_vision",)

    @property
    def tile_side(self) -> int:
        return int(super().tile_side * Fraction(self.config.downsample_rate or 1))
