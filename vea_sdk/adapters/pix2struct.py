"""Pix2Struct: the decoder cross-attends to patches of the picture at its own aspect ratio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vea_sdk.adapters.canvas import Canvas, raster
from vea_sdk.adapters.cross import CrossAttentionAdapter
from vea_sdk.adapters.geometry import ImageLayout
from vea_sdk.adapters.modules import decoder_of
from vea_sdk.adapters.prompting import Pictures, picture_before_text
from vea_sdk.errors import GeometryError, ImageTokenError


class Pix2StructAdapter(CrossAttentionAdapter):
    """The picture is stretched to as many whole patches as are allowed; the keys are padded to that number."""

    model_types = ("pix2struct",)
    decoder_prefix: ClassVar[str] = "decoder_"

    def attention_modules(self) -> dict[int, nn.Module]:
        layers: Any = decoder_of(self.model).layer
        return {i: block.encoder_decoder_attention.attention for i, block in enumerate(layers)}

    @property
    def n_layers(self) -> int:
        return len(self.attention_modules())

    def vision_positions(self, fed: Mapping[str, Any]) -> Tensor:
        # In a running pass "attention_mask" is the decoder's; a processor's output has only the patches'.
        mask = fed.get("encoder_attention_mask", fed.get("attention_mask"))
        if mask is None:
            raise ImageTokenError(f"{self.name}: no mask of the patches was given. Pass what the processor returned.")
        rows = [row.nonzero().flatten() for row in mask]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1)

    def prepare(self, processor: Any, pictures: Pictures, texts: Sequence[str], padding: Mapping[str, Any]) -> Any:
        """The text is how the answer begins; with ``is_vqa`` the processor draws it above the picture."""
        return picture_before_text(self.name, processor, pictures, texts, padding)

    def lay_out(
        self, inputs: Mapping[str, Any], image_sizes: Sequence[tuple[int, int]], processor: Any
    ) -> list[ImageLayout]:
        if processor.image_processor.is_vqa:
            raise GeometryError(
                f"{self.name}: with is_vqa the processor draws the question above the picture, so the patches do not "
                "show the picture alone. Scores are captured all the same."
            )
        grids = [(int(one[:, 0].max()), int(one[:, 1].max())) for one in inputs["flattened_patches"]]
        self.check_pictures(len(image_sizes), len(grids))
        layouts = []
        for size, (rows, cols) in zip(image_sizes, grids, strict=True):
            canvas = Canvas.of(size)
            layouts.append(
                ImageLayout(size, canvas.size, canvas.region, rows * cols, (canvas.grid(raster(rows, cols)),))
            )
        return layouts
