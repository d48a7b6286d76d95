"""BLIP captions and GIT: attention that no attention function computes; its modules return the weights they made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vea_sdk.adapters.prompting import Pictures, picture_before_text
from vea_sdk.adapters.vision_encoder import VisionEncoderAdapter
from vea_sdk.errors import ImageTokenError, UnsupportedModelError


class BlipAdapter(VisionEncoderAdapter):
    """The text decoder cross-attends to the class token and the patches of a square picture."""

    model_types = ("blip",)
    decoder_prefix: ClassVar[str] = ""
    no_question: ClassVar[str] = ""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        if hasattr(self.model, "text_encoder"):
            raise UnsupportedModelError(
                f"{type(self.model).__name__} reads the picture while it encodes the question; its decoder, which "
                "answers, looks at the encoded question alone, so no row of attention says where it looked. Load "
                "BlipForConditionalGeneration, or let another model look: vea.wrap(..., attend_with=)."
            )

    @property
    def decoder(self) -> nn.Module:
        return self.model.get_submodule("text_decoder")

    def returned_weights(self, output: Any) -> Tensor | None:
        weights: Tensor = output[1]
        return weights

    def prepare(self, processor: Any, pictures: Pictures, texts: Sequence[str], padding: Mapping[str, Any]) -> Any:
        """The text is how the caption begins."""
        inputs = picture_before_text(self.name, processor, pictures, texts, padding)
        inputs.pop("token_type_ids", None)  # which the decoder does not take
        return inputs

    def prompt_length(self, inputs: Mapping[str, Any]) -> int:
        """``generate()`` leaves the prompt's last token out: it ends the text."""
        return super().prompt_length(inputs) - 1

    def patches(self, pixel_values: Tensor) -> tuple[int, int, int]:
        height, width = pixel_values.shape[-2:]
        patch = self.config.vision_config.patch_size
        return height // patch, width // patch, 1


class GitAdapter(BlipAdapter):
    """The class token and the patches stand before the text in one sequence, without placeholders."""

    model_types = ("git",)

    @property
    def decoder(self) -> nn.Module:
        # Not the model that embeds the text: what its layers are fed includes the picture.
        inner: Any = getattr(self.model, "git", self.model)
        encoder: nn.Module = inner.encoder
        return encoder

    def attention_modules(self) -> dict[int, nn.Module]:
        layers: Any = self.decoder.layer
        return {i: block.attention.self for i, block in enumerate(layers)}

    @property
    def n_layers(self) -> int:
        return len(self.attention_modules())

    def prepare(self, processor: Any, pictures: Pictures, texts: Sequence[str], padding: Mapping[str, Any]) -> Any:
        """The class token and the question; the answer follows it, with no mark between."""
        start = processor.tokenizer.cls_token
        options = {"add_special_tokens": False, "return_token_type_ids": False}
        return picture_before_text(self.name, processor, pictures, [start + one for one in texts], padding, **options)

    def prompt_length(self, inputs: Mapping[str, Any]) -> int:
        return VisionEncoderAdapter.prompt_length(self, inputs)

    def vision_positions(self, fed: Mapping[str, Any]) -> Tensor:
        pixels = fed.get("pixel_values")
        if not isinstance(pixels, Tensor) or pixels.dim() != 4:
            raise ImageTokenError(
                f"{self.name}: one picture per prompt is read, pixel_values [batch, 3, height, width]."
            )
        rows, cols, first = self.patches(pixels)
        return torch.arange(first + rows * cols).expand(pixels.shape[0], -1)
