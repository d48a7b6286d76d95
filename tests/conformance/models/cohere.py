"""Cohere 2 Vision: tiles and a thumbnail, sliding layers."""

from __future__ import annotations

import transformers as hf

from tests.conformance.tiny import TEXT, Tiny, byte_tokenizer, case, tiny_model


@case("cohere2_vision")
def cohere2_vision() -> Tiny:
    side, patch = 48, 4  # per tile: 12 x 12 patches, pixel-shuffled to 6 x 6 tokens
    names = {
        "boi_token": "<|START_OF_IMG|>",
        "eoi_token": "<|END_OF_IMG|>",
        "img_line_break_token": "<|IMG_LINE_BREAK|>",
    }
    tokenizer = byte_tokenizer(image_token="<|IMG_PATCH|>", **names)
    image_processor = hf.Cohere2VisionImageProcessor(size={"height": side, "width": side}, max_patches=6)
    image_processor.patch_size = side // patch // 2  # its name for tokens along a tile's side
    processor = hf.Cohere2VisionProcessor(image_processor, tokenizer)
    config = hf.Cohere2VisionConfig(
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
        alignment_intermediate_size=64,
        image_token_id=tokenizer.image_token_id,
    )
    return Tiny(
        tiny_model(hf.Cohere2VisionForConditionalGeneration, config),
        processor,
        tokenizer.image_token_id,
        "<|IMG_PATCH|>",
    )
