"""Aya Vision: tiles and a thumbnail, each after a text that names it; sliding layers."""

from __future__ import annotations

import transformers as hf

from tests.conformance.tiny import TEXT, Tiny, byte_tokenizer, case, tiny_model


@case("aya_vision")
def aya_vision() -> Tiny:
    side, patch = 48, 4  # per tile: 12 x 12 patches, pixel-shuffled to 6 x 6 tokens
    names = {"boi_token": "<|START_OF_IMG|>", "eoi_token": "<|END_OF_IMG|>", "global_token": "TILE_GLOBAL"}
    tokenizer = byte_tokenizer(image_token="<|IMG_PATCH|>", **names)
    image_processor = hf.GotOcr2ImageProcessorPil(size={"height": side, "width": side}, max_patches=6)
    processor = hf.AyaVisionProcessor(image_processor, tokenizer, patch_size=patch, img_size=side, downsample_factor=2)
    config = hf.AyaVisionConfig(
        vision_config={
            "model_type": "siglip_vision_model",
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": side,
            "patch_size": patch,
            "vision_use_head": False,
        },
        text_config={k: v for k, v in TEXT.items() if k != "head_dim"}
        | {"model_type": "cohere2", "vocab_size": len(tokenizer), "sliding_window": 48},
        downsample_factor=2,
        image_token_index=tokenizer.image_token_id,
    )
    model = tiny_model(hf.AyaVisionForConditionalGeneration, config)
    return Tiny(model, processor, tokenizer.image_token_id, "<image>")
