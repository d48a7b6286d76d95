"""Granite for Docling: tiles and a thumbnail, deepstack. Granite 4 Vision: anyres, features added in the decoder."""

from __future__ import annotations

from typing import Any

import torch
import transformers as hf
from torch import Tensor

from tests.conformance.geometry import decoder_arguments
from tests.conformance.tiny import TEXT, Tiny, byte_tokenizer, case, tiny_model

GRANITE_TEXT = {key: value for key, value in TEXT.items() if key != "head_dim"} | {"attention_multiplier": 0.25}


@case("granite_docling")
def granite_docling() -> Tiny:
    side, patch, scale = 48, 4, 2  # 6 x 6 tokens per tile
    tiles = {f"tile_{r}_{c}": f"<row_{r}_col_{c}>" for r in range(1, 7) for c in range(1, 7)}
    tokenizer = byte_tokenizer(
        image_token="<image>", fake_image_token="<fake_token_around_image>", global_image_token="<global-img>", **tiles
    )
    image_processor = hf.GraniteDoclingImageProcessorPil(size={"height": side, "width": side}, max_patches=6)
    processor = hf.GraniteDoclingProcessor(image_processor, tokenizer, image_seq_len=36)
    config = hf.GraniteDoclingConfig(
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "image_size": side,
            "patch_size": patch,
            "out_hidden_size": 64,
            "scale_factor": scale,
            "deepstack_visual_indexes": [0, 1],
        },
        text_config=GRANITE_TEXT | {"vocab_size": len(tokenizer)},
        image_token_id=tokenizer.image_token_id,
        pad_token_id=0,
    )
    model = tiny_model(hf.GraniteDoclingForConditionalGeneration, config)
    options = ({"fine_route": True}, {"crop_to_patches": False})
    return Tiny(model, processor, tokenizer.image_token_id, "<image>", options=options)


def added_in_the_decoder(model: Any, inputs: Any) -> Tensor:
    """Image tokens enter the decoder as zeros; the features that its layers add, one after the other in depth."""
    fed = decoder_arguments(model, inputs)
    features = torch.cat([fed["deepstack_features"][layer] for layer in sorted(fed["deepstack_features"])], dim=-1)
    return features.reshape(len(inputs["input_ids"]), -1, features.shape[-1])


@case("granite4_vision")
def granite4_vision() -> Tiny:
    side, patch, rate = 64, 4, "2/4"  # 16 x 16 patches; windows of 4 x 4 are asked by 2 x 2 queries: 8 x 8 tokens
    pinpoints = [[64, 128], [128, 64], [128, 128]]
    tokenizer = byte_tokenizer(image_token="<image>")
    image_processor = hf.LlavaNextImageProcessorPil(
        size={"height": side, "width": side}, crop_size={"height": side, "width": side}, image_grid_pinpoints=pinpoints
    )
    processor = hf.Granite4VisionProcessor(
        image_processor,
        tokenizer,
        patch_size=patch,
        vision_feature_select_strategy="full",
        downsample_rate=rate,
    )
    config = hf.Granite4VisionConfig(
        vision_config={
            "model_type": "siglip_vision_model",
            "hidden_size": 64,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": side,
            "patch_size": patch,
            "vision_use_head": False,
        },
        qformer_config={
            "model_type": "blip_2_qformer",
            "num_hidden_layers": 1,
            "intermediate_size": 48,
            "cross_attention_frequency": 1,
            "use_qformer_text_input": False,
        },
        text_config=GRANITE_TEXT | {"vocab_size": len(tokenizer)},
        vision_feature_select_strategy="full",
        image_token_index=tokenizer.image_token_id,
        image_grid_pinpoints=pinpoints,
        downsample_rate=rate,
        deepstack_layer_map=[[-1, 0]],
        spatial_target_layers=[0, 1, 2, 3],
    )
    model = tiny_model(hf.Granite4VisionForConditionalGeneration, config)
    return Tiny(
        model, processor, tokenizer.image_token_id, "<image>", image_tokens=added_in_the_decoder, quiet=r"projector"
    )
