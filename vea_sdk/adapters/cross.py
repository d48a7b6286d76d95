"""Architectures whose decoder looks at the picture through cross-attention: its keys are vision states, not tokens of
the prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, ClassVar

from torch import Tensor, nn

from vea_sdk.adapters.base import Adapter
from vea_sdk.adapters.geometry import ImageLayout, check_size
from vea_sdk.adapters.modules import decoder_layers, decoder_of
from vea_sdk.errors import GeometryError, ImageTokenError


class CrossAttentionAdapter(Adapter):
    """Two methods to write: ``attention_modules`` returns the cross-attention of the layers that have one;
    ``vision_positions(fed)`` says which of its keys are image tokens, [B, M] int64, −1 where a row has fewer. ``fed``
    are the named arguments of the pass that brings the pictures (those of the model and of its decoder), or what the
    processor returned; without a picture in them it raises ImageTokenError."""

    cross_attention: ClassVar[bool] = True

    def layouts(
        self, inputs: Mapping[str, Any], image_sizes: Sequence[tuple[int, int]], processor: Any
    ) -> list[ImageLayout]:
        for size in image_sizes:
            check_size("Each of image_sizes", size)
        counts = (self.vision_positions(inputs) >= 0).sum(dim=1).tolist()
        layouts = self.lay_out(inputs, [(int(h), int(w)) for h, w in image_sizes], processor)
        described = [0, *accumulate(layout.n_tokens for layout in layouts)]
        found = list(accumulate(counts))
        if found[-1] != described[-1] or not set(found) <= set(described):
            raise GeometryError(
                f"{self.name}: there are {found[-1]} image tokens (by row: {counts}), the pictures account for "
                f"{described[-1]}: {'; '.join(map(str, layouts))}. Give the (height, width) of the original pictures "
                "in prompt order."
            )
        return layouts


class EncoderDecoderAdapter(CrossAttentionAdapter):
    """The prompt, image tokens included, goes through an encoder; the decoder's cross-attention looks at its states."""

    decoder_prefix: ClassVar[str] = "decoder_"

    @property
    def decoder(self) -> nn.Module:
        text: Any = decoder_of(self.model)
        decoder: nn.Module = text.get_decoder()
        return decoder

    @property
    def n_layers(self) -> int:
        return len(decoder_layers(self.decoder))

    def attention_modules(self) -> dict[int, nn.Module]:
        found = {i: getattr(block, "encoder_attn", None) for i, block in enumerate(decoder_layers(self.decoder))}
        return {i: module for i, module in found.items() if isinstance(module, nn.Module)}

    @property
    def encoder_embedding(self) -> nn.Module:
        model: Any = self.model
        embedding: nn.Module = model.get_input_embeddings()
        return embedding

    def vision_positions(self, fed: Mapping[str, Any]) -> Tensor:
        # A processor's output has only the encoder's ids; in a running pass "input_ids" are the decoder's.
        ids = fed["encoder_input_ids"] if "encoder_input_ids" in fed else fed.get("input_ids")
        if ids is None:
            raise ImageTokenError(
                f"{self.name}: the encoder was called with embeddings, which do not show where the image tokens are. "
                "Give image_positions=, the positions [batch, image tokens] in the encoder's sequence."
            )
        return self.image_positions(ids)
