"""Gemma 3n and Gemma 4: the last layers reuse the keys of earlier ones, most layers slide."""

from __future__ import annotations

from typing import Any

import torch
import transformers as hf
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from tests.conformance.tiny import TEXT, Tiny, byte_tokenizer, case, tiny_model, without

# Layers 2 and 3 look at the keys of layers 0 and 1.
LAYERS = {
    "num_kv_shared_layers": 2,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
    "sliding_window": 48,
    "hidden_size_per_layer_input": 16,
}


def gemma_tokenizer(image_token: str) -> Any:
    return byte_tokenizer(
        image_token=image_token,
        boi_token="<start_of_image>",
        eoi_token="<end_of_image>",
        audio_token="<audio>",
        boa_token="<start_of_audio>",
        eoa_token="<end_of_audio>",
        video_token="<|video|>",
    )


def gemma_token_ids(tokenizer: Any) -> dict[str, int]:
    return {
        "image_token_id": tokenizer.image_token_id,
        "audio_token_id": tokenizer.audio_token_id,
        "boi_token_id": tokenizer.boi_token_id,
        "eoi_token_id": tokenizer.eoi_token_id,
        "boa_token_id": tokenizer.boa_token_id,
    }


def gemma4_processor(processor_class: Any, image_processor: Any) -> Any:
    tokenizer = gemma_tokenizer("<image>")
    parts = without(processor_class, "feature_extractor", "video_processor")
    return parts(feature_extractor=None, image_processor=image_processor, tokenizer=tokenizer, video_processor=None)


@case("gemma4")
def gemma4() -> Tiny:
    image_processor = hf.Gemma4ImageProcessorPil(patch_size=4, pooling_kernel_size=2, max_soft_tokens=70)
    processor = gemma4_processor(hf.Gemma4Processor, image_processor)
    tokenizer = processor.tokenizer
    config = hf.Gemma4Config(
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "patch_size": 4,
            "pooling_kernel_size": 2,
            "position_embedding_size": 128,
        },
        text_config=TEXT
        | LAYERS
        | {"vocab_size": len(tokenizer), "vocab_size_per_layer_input": len(tokenizer), "global_head_dim": 32},
        video_token_id=tokenizer.video_token_id,
        **gemma_token_ids(tokenizer),
    )
    model = tiny_model(hf.Gemma4ForConditionalGeneration, config)
    return Tiny(model, processor, tokenizer.image_token_id, "<image>")


@case("gemma4_unified")
def gemma4_unified() -> Tiny:
    """No vision tower: a linear layer on pixels. Image tokens see each other in both directions."""
    image_processor = hf.Gemma4UnifiedImageProcessor(patch_size=4, pooling_kernel_size=2, max_soft_tokens=70)
    processor = gemma4_processor(hf.Gemma4UnifiedProcessor, image_processor)
    tokenizer = processor.tokenizer
    layers = {key: value for key, value in LAYERS.items() if key != "hidden_size_per_layer_input"}
    config = hf.Gemma4UnifiedConfig(
        vision_config={
            "patch_size": 4,
            "pooling_kernel_size": 2,
            "mm_embed_dim": 48,
            "mm_posemb_size": 128,
            "output_proj_dims": 48,
        },
        text_config=TEXT | layers | {"vocab_size": len(tokenizer), "global_head_dim": 32},
        video_token_id=tokenizer.video_token_id,
        **gemma_token_ids(tokenizer),
    )
    model = tiny_model(hf.Gemma4UnifiedForConditionalGeneration, config)
    return Tiny(model, processor, tokenizer.image_token_id, "<image>")


class TowerConfig(hf.Gemma3nVisionConfig):  # type: ignore[misc]
    """Says which tower to build."""


class Tower(hf.PreTrainedModel):  # type: ignore[misc]
    """MobileNet comes from timm, which needs torchvision. This stands for it: patches of 8 x 8 pixels, and a feature
    map of the same form, [B, channels, rows, cols]. What makes tokens of the map is Gemma 3n's own."""

    config_class = TowerConfig

    def __init__(self, config: TowerConfig) -> None:
        super().__init__(config)
        self.patches = torch.nn.Conv2d(3, config.hidden_size, 8, 8)
        self.post_init()

    def forward(self, pixel_values: Tensor, **options: Any) -> BaseModelOutputWithPooling:
        return BaseModelOutputWithPooling(last_hidden_state=self.patches(pixel_values).tanh())


hf.AutoModel.register(TowerConfig, Tower)


@case("gemma3n")
def gemma3n() -> Tiny:
    tokenizer = gemma_tokenizer("<image_soft_token>")
    first = tokenizer.image_token_id  # ids of words, then three of pictures, then three of sound
    processor = without(hf.Gemma3nProcessor, "feature_extractor")(
        feature_extractor=None,
        image_processor=hf.SiglipImageProcessorPil(size={"height": 64, "width": 64}),
        tokenizer=tokenizer,
        image_seq_length=64,
    )
    config = hf.Gemma3nConfig(
        text_config=TEXT
        | LAYERS
        | {
            "vocab_size": len(tokenizer),
            "vocab_size_per_layer_input": first,
            "laurel_rank": 8,
            "altup_num_inputs": 2,
        },
        vision_config=TowerConfig(hidden_size=32, vocab_size=3, vocab_offset=first),
        audio_config={
            "vocab_size": 3,
            "vocab_offset": first + 3,
            "input_feat_size": 32,
            "hidden_size": 32,
            "conf_num_attention_heads": 2,
            "conf_num_hidden_layers": 1,
            "sscp_conv_channel_size": [8, 8],
        },
        vision_soft_tokens_per_image=64,
        eoa_token_id=tokenizer.eoa_token_id,
        **gemma_token_ids(tokenizer),
    )
    model = tiny_model(hf.Gemma3nForConditionalGeneration, config)
    return Tiny(model, processor, tokenizer.image_token_id, "<image_soft_token>")
