"""IDEFICS: every few layers a gated cross-attention stands before the layer and looks at the pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vea_sdk.adapters.cross import CrossAttentionAdapter
from vea_sdk.adapters.geometry import ImageLayout
from vea_sdk.adapters.modules import decoder_of
from vea_sdk.adapters.prompting import Pictures
from vea_sdk.adapters.vision_encoder import squeezed
from vea_sdk.errors import GeometryError, NoImageError


class IdeficsAdapter(CrossAttentionAdapter):
    """The keys hold the class token and the patches of every picture, or, with the resampler that the published
    checkpoints use, its latents, which have no place. A token looks at the last picture before it."""

    model_types = ("idefics",)

    def attention_modules(self) -> dict[int, nn.Module]:
        blocks: Any = decoder_of(self.model).gated_cross_attn_layers
        return {i * self.config.cross_layer_interval: block.cross_attn for i, block in enumerate(blocks)}

    def vision_positions(self, fed: Mapping[str, Any]) -> Tensor:
        seen = fed.get("image_attention_mask")
        if seen is None or not seen.any():
            raise NoImageError(f"{self.name}: the prompt holds no picture. Give the processor one.")
        used = seen.bool().any(dim=1).repeat_interleave(self._per_picture, dim=1)  # [B, pictures * tokens]
        rows = [row.nonzero().flatten() for row in used]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1)

    def prepare(self, processor: Any, pictures: Pictures, texts: Sequence[str], padding: Mapping[str, Any]) -> Any:
        """A prompt is a list of pictures and texts, in the words of its dialogues."""
        # Between two texts the processor puts the end of an utterance, where the checkpoint knows one.
        prompts = [["User:", *row, text, "\nAssistant:"] for row, text in zip(pictures, texts, strict=True)]
        return processor(text=prompts, return_tensors="pt", **padding)

    @property
    def _side(self) -> int:
        vision = self.config.vision_config
        return int(vision.image_size // vision.patch_size)

    @property
    def _per_picture(self) -> int:
        if self.config.use_resampler:
            return int(self.config.perceiver_config.resampler_n_latents)
        return 1 + self._side**2

    def lay_out(
        self, inputs: Mapping[str, Any], image_sizes: Sequence[tuple[int, int]], processor: Any
    ) -> list[ImageLayout]:
        if self.config.use_resampler:
            raise GeometryError(
                f"{self.name}: its resampler's latents each gather from the whole picture, so none has a place on it "
                "and there is no map. The scores are captured all the same (vea.capture)."
            )
        return [squeezed(size, processor, self._side, self._side, 1) for size in image_sizes]
