"""Decoders that cross-attend to an encoder of the picture alone: one picture per prompt, its states are the keys."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vea_sdk.adapters.canvas import raster
from vea_sdk.adapters.cross import CrossAttentionAdapter
from vea_sdk.adapters.generic import squared
from vea_sdk.adapters.geometry import ImageLayout
from vea_sdk.adapters.modules import decoder_layers
from vea_sdk.adapters.options import image_option
from vea_sdk.errors import GeometryError, NoImageError, UnsupportedModelError

# What a block calls its cross-attention; BERT's block of that name holds the module that computes it.
CROSS_ATTENTION_NAMES = ("encoder_attn", "crossattention.self", "crossattention")


class VisionEncoderAdapter(CrossAttentionAdapter):
    """To write: ``patches``, how many rows and columns of states a picture of ``pixel_values`` gives, and how many
    states come before them."""

    decoder_prefix: ClassVar[str] = "decoder_"
    no_question: ClassVar[str] = "it reads a picture from the token that starts its text, and takes no other"

    @property
    def n_layers(self) -> int:
        return len(decoder_layers(self.decoder))

    def attention_modules(self) -> dict[int, nn.Module]:
        found = {i: cross_attention_of(block) for i, block in enumerate(decoder_layers(self.decoder))}
        modules = {i: module for i, module in found.items() if module is not None}
        if not modules:
            raise UnsupportedModelError(f"{self.name}: none of its {len(found)} decoder layers has cross-attention.")
        return modules

    def vision_positions(self, fed: Mapping[str, Any]) -> Tensor:
        states, pixels = fed.get("encoder_hidden_states"), fed.get("pixel_values")
        if isinstance(states, Tensor):
            batch, count = states.shape[:2]
        elif isinstance(pixels, Tensor):
            rows, cols, first = self.patches(pixels)
            batch, count = pixels.shape[0], first + rows * cols
        else:
            raise NoImageError(f"{self.name}: the prompt holds no picture. Give the processor one.")
        return torch.arange(count).expand(batch, -1)

    @abstractmethod
    def patches(self, pixel_values: Tensor) -> tuple[int, int, int]:
        """(rows, cols, states before them), of which none stands for a place."""

    def lay_out(
        self, inputs: Mapping[str, Any], image_sizes: Sequence[tuple[int, int]], processor: Any
    ) -> list[ImageLayout]:
        self.check_pictures(len(image_sizes), len(inputs["pixel_values"]))
        return [squeezed(size, processor, *self.patches(inputs["pixel_values"])) for size in image_sizes]


class VisionEncoderDecoderAdapter(VisionEncoderAdapter):
    """Any vision encoder with any text decoder (TrOCR and the like). Places are known for encoders of the ViT kind,
    whose processor resizes plainly."""

    model_types = ("vision-encoder-decoder",)

    # Tokens before the patches: the class token, and DeiT's distillation token.
    first_patch: ClassVar[dict[str, int]] = {"vit": 1, "deit": 2, "beit": 1}

    def patches(self, pixel_values: Tensor) -> tuple[int, int, int]:
        encoder = self.config.encoder
        first = self.first_patch.get(encoder.model_type)
        if first is None:
            raise GeometryError(
                f"{self.name}: the places of its {encoder.model_type!r} encoder's states are not known, only those of "
                f"{', '.join(self.first_patch)}. Subclass this adapter and override patches()."
            )
        height, width = pixel_values.shape[-2:]
        return height // encoder.patch_size, width // encoder.patch_size, first


class PPFormulaNetAdapter(VisionEncoderAdapter):
    """Formulas: patches, then two convolutions of stride 2."""

    model_types = ("pp_formulanet",)

    def patches(self, pixel_values: Tensor) -> tuple[int, int, int]:
        height, width = pixel_values.shape[-2:]
        cell = 4 * self.config.vision_config.patch_size
        return height // cell, width // cell, 0

    def lay_out(
        self, inputs: Mapping[str, Any], image_sizes: Sequence[tuple[int, int]], processor: Any
    ) -> list[ImageLayout]:
        raise GeometryError(
            f"{self.name}: its image processor cuts off empty margins, and how much depends on the picture's pixels, "
            "so places on the original are not known. Scores are captured all the same."
        )


def cross_attention_of(block: nn.Module) -> nn.Module | None:
    for name in CROSS_ATTENTION_NAMES:
        try:
            return block.get_submodule(name)
        except AttributeError:
            continue
    return None


def squeezed(original_size: tuple[int, int], processor: Any, rows: int, cols: int, first: int) -> ImageLayout:
    """A picture resized to the tower's size, and cropped where the processor does; ``first`` tokens before the
    raster stand for no place."""
    if image_option(processor, "do_thumbnail") or image_option(processor, "do_align_long_axis"):
        raise GeometryError(
            f"{type(processor.image_processor).__name__} rotates or pads pictures, which is not followed here. "
            "Subclass the adapter and override lay_out()."
        )
    canvas = squared(original_size, processor)
    return ImageLayout(
        original_size, canvas.size, canvas.region, first + rows * cols, (canvas.grid(raster(rows, cols, first)),)
    )
