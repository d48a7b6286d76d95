"""Llama 3.2 Vision: cross-attention to the tiles of the pictures in two of four layers."""

from __future__ import annotations

from typing import Any

import torch
import transformers as hf
from torch import Tensor

from tests.conformance.geometry import decoder_arguments
from tests.conformance.tiny import TEXT, Tiny, byte_tokenizer, case, tiny_model

SIDE, PATCH, TILES = 48, 6, 4
TOKENS = (SIDE // PATCH) ** 2 + 1  # of one tile, its class token included


def vision_keys(inputs: Any) -> Tensor:
    """The tokens of the tiles in use; the keys hold TILES per picture."""
    rows = []
    for masks in inputs["aspect_ratio_mask"]:
        starts = [
            (picture * TILES + tile) * TOKENS for picture, mask in enumerate(masks) for tile in range(int(mask.sum()))
        ]
        rows.append(torch.cat([torch.arange(start, start + TOKENS) for start in starts]))
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1)


def vision_states(model: Any, inputs: Any) -> Tensor:
    states = decoder_arguments(model, inputs)["cross_attention_states"]
    states = states.reshape(len(inputs["input_ids"]), -1, states.shape[-1])
    keys = vision_keys(inputs)
    return states[torch.arange(len(keys))[:, None], keys]


@case("mllama")
def mllama() -> Tiny:
    tokenizer = byte_tokenizer(image_token="<|image|>")
    image_processor = hf.MllamaImageProcessorPil(size={"height": SIDE, "width": SIDE}, max_image_tiles=TILES)
    processor = hf.MllamaProcessor(image_processor, tokenizer)
    config = hf.MllamaConfig(
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_global_layers": 1,
            "attention_heads": 2,
            "image_size": SIDE,
            "patch_size": PATCH,
            "max_num_tiles": TILES,
            "vision_output_dim": 64,
            "intermediate_layers_indices": [0],
        },
        text_config={key: value for key, value in TEXT.items() if key != "head_dim"}
        | {"vocab_size": len(tokenizer), "cross_attention_layers": [1, 3]},
        image_token_index=tokenizer.image_token_id,
    )
    return Tiny(
        tiny_model(hf.MllamaForConditionalGeneration, config),
        processor,
        tokenizer.image_token_id,
        "<|image|>",
        layers=(1, 3),
        cross=True,
        image_keys=vision_keys,
        image_tokens=vision_states,
    )
