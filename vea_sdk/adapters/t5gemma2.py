"""T5Gemma 2: Gemma 3's pictures in an encoder; one attention over the decoder's own keys and the encoder's."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from vea_sdk.adapters.cross import EncoderDecoderAdapter
from vea_sdk.adapters.gemma3 import Gemma3Adapter
from vea_sdk.adapters.modules import decoder_layers


class T5Gemma2Adapter(EncoderDecoderAdapter, Gemma3Adapter):
    model_types = ("t5gemma2",)
    merged_attention: ClassVar[bool] = True

    def attention_modules(self) -> dict[int, nn.Module]:
        return {i: block.get_submodule("self_attn") for i, block in enumerate(decoder_layers(self.decoder))}

    @property
    def tokens_per_picture(self) -> int:
        return int(self.config.encoder.mm_tokens_per_image)
