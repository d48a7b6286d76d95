"""LFM2-VL: tiles of large pictures, small ones at their own aspect ratio; convolutions in half of the layers."""

from __future__ import annotations

import transformers as hf

from tests.conformance.tiny import SIZES, TEXT, Tiny, byte_tokenizer, case, tiny_model


@case("lfm2_vl")
def lfm2_vl() -> Tiny:
    side, patch = 48, 4  # 6 x 6 tokens per tile
    tiles = {f"tile_{r}_{c}": f"<|img_row_{r}_col_{c}|>" for r in range(1, 7) for c in range(1, 7)}
    tokenizer = byte_tokenizer(
        image_token="<image>",
        image_start_token="<|image_start|>",
        image_end_token="<|image_end|>",
        image_thumbnail_token="<|img_thumbnail|>",
        **tiles,
    )
    image_processor = hf.Lfm2VlImageProcessor(
        encoder_patch_size=patch,
        tile_size=side,
        min_image_tokens=32,
        max_image_tokens=64,
        max_tiles=6,
        max_pixels_tolerance=1.2,
    )
    processor = hf.Lfm2VlProcessor(image_processor, tokenizer)
    text = {key: value for key, value in TEXT.items() if key != "head_dim"}
    config = hf.Lfm2VlConfig(
        vision_config={
            "model_type": "siglip2_vision_model",
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_patches": 144,
            "patch_size": patch,
            "vision_use_head": False,
        },
        text_config=text
        | {
            "model_type": "lfm2",
            "vocab_size": len(tokenizer),
            "layer_types": ["conv", "full_attention", "conv", "full_attention"],
            "block_multiple_of": 16,
        },
        projector_hidden_size=64,
        image_token_id=tokenizer.image_token_id,
    )
    model = tiny_model(hf.Lfm2VlForConditionalGeneration, config)
    return Tiny(
        model,
        processor,
        tokenizer.image_token_id,
        "<image>",
        layers=(1, 3),
        sizes=(*SIZES, (50, 70)),  # small enough for one tile
        options=({"do_image_splitting": False}, {"use_thumbnail": False}),
    )
