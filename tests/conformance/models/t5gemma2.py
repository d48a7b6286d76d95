"""T5Gemma 2: Gemma 3's pictures in an encoder, sliding windows in the decoder, one softmax over the keys of both."""

from __future__ import annotations

from typing import Any

import torch
import transformers as hf
from torch import Tensor

from tests import families
from tests.conformance.geometry import decoder_arguments
from tests.conformance.models.gemma import SIGLIP
from tests.conformance.tiny import TEXT, Tiny, case, tiny_model


def encoder_input(model: Any, inputs: Any) -> Tensor:
    """The encoder's embeddings at the image tokens."""
    embeddings = decoder_arguments(model, inputs, model.get_encoder().text_model)["inputs_embeds"]
    rows = (inputs["input_ids"] == model.config.image_token_id).nonzero()[:, 1].reshape(len(embeddings), -1)
    return embeddings[torch.arange(len(rows))[:, None], rows]


@case("t5gemma2")
def t5gemma2() -> Tiny:
    gemma = families.gemma3()
    tokenizer = gemma.processor.tokenizer
    text: dict[str, Any] = TEXT | {
        "vocab_size": len(tokenizer),
        "query_pre_attn_scalar": 16,
        "sliding_window": 3,  # passed in decoding
        "layer_types": ["sliding_attention", "full_attention"] * 2,
    }
    config = hf.T5Gemma2Config(
        encoder={
            "text_config": text | {"sliding_window": 48},
            "vision_config": SIGLIP | {"model_type": "siglip_vision_model", "patch_size": 4},
            "mm_tokens_per_image": 64,
            "boi_token_index": tokenizer.boi_token_id,
            "eoi_token_index": tokenizer.eoi_token_id,
            "image_token_index": tokenizer.image_token_id,
        },
        decoder=text,
        image_token_index=tokenizer.image_token_id,
        eoi_token_index=tokenizer.eoi_token_id,
    )
    config.decoder_start_token_id = 1
    return Tiny(
        tiny_model(hf.T5Gemma2ForConditionalGeneration, config),
        gemma.processor,
        gemma.image_token_id,
        "<start_of_image>",
        cross=True,
        merged=True,
        weights_at=2,
        image_tokens=encoder_input,
    )
