"""Florence-2: picture and prompt go through an encoder, the decoder cross-attends to it."""

from __future__ import annotations

from typing import Any

import torch
import transformers as hf
from torch import Tensor

from tests.conformance.geometry import decoder_arguments
from tests.conformance.tiny import Tiny, byte_tokenizer, case, tiny_model


def encoder_input(model: Any, inputs: Any) -> Tensor:
    """The encoder's embeddings at the image tokens."""
    embeddings = decoder_arguments(model, inputs, model.get_encoder())["inputs_embeds"]
    rows = (inputs["input_ids"] == model.config.image_token_id).nonzero()[:, 1].reshape(len(embeddings), -1)
    return embeddings[torch.arange(len(rows))[:, None], rows]


@case("florence2")
def florence2() -> Tiny:
    side = 128  # pixels; strides 4, 2, 2 leave 8 x 8 features
    tokenizer = byte_tokenizer(image_token="<image>")
    size = {"height": side, "width": side}
    image_processor = hf.CLIPImageProcessorPil(size=size, crop_size=size, do_center_crop=False)
    image_processor.image_seq_length = 65
    processor = hf.Florence2Processor(image_processor, tokenizer)
    config = hf.Florence2Config(
        vision_config={
            "depths": [1, 1, 1],
            "patch_size": [7, 3, 3],
            "patch_stride": [4, 2, 2],
            "patch_padding": [3, 1, 1],
            "patch_prenorm": [False, True, True],
            "embed_dim": [16, 32, 32],
            "num_heads": [2, 2, 2],
            "num_groups": [2, 2, 2],
            "window_size": 4,
            "projection_dim": 64,
            "drop_path_rate": 0.0,
        },
        text_config={
            "model_type": "bart",
            "vocab_size": len(tokenizer),
            "d_model": 64,
            "encoder_layers": 2,
            "decoder_layers": 3,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 96,
            "decoder_ffn_dim": 96,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 0,
            "decoder_start_token_id": 2,
            "forced_eos_token_id": None,
        },
        image_token_id=tokenizer.image_token_id,
    )
    return Tiny(
        tiny_model(hf.Florence2ForConditionalGeneration, config),
        processor,
        tokenizer.image_token_id,
        several=False,
        cross=True,
        image_tokens=encoder_input,
        largest_bias=0.6,  # strided convolutions with random kernels do not weigh their window evenly
    )
