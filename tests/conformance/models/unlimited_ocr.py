"""Unlimited-OCR: a raster over tiles and one of the whole; a window that never leaves the prompt."""

from __future__ import annotations

import transformers as hf

from tests.conformance.tiny import SIZES, TEXT, Tiny, byte_tokenizer, case, tiny_model


@case("unlimited_ocr")
def unlimited_ocr() -> Tiny:
    side, tile, patch = 64, 48, 2  # strides of 4: 8 x 8 tokens of the whole, 6 x 6 of a tile
    tokenizer = byte_tokenizer(image_token="<image>")
    image_processor = hf.UnlimitedOcrImageProcessor(
        size={"height": side, "width": side}, tile_size=tile, max_patches=6, maximum_pad_value=tile
    )
    processor = hf.UnlimitedOcrProcessor(image_processor, tokenizer, patch_size=patch, downsample_ratio=4)
    text = {key: value for key, value in TEXT.items() if key != "head_dim"}
    config = hf.UnlimitedOcrConfig(
        vision_config={
            "sam_config": {
                "hidden_size": 32,
                "output_channels": 32,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "image_size": side,
                "patch_size": patch,
                "initializer_range": 0.1,
                "window_size": 8,
                "global_attn_indexes": [],
                "mlp_dim": 48,
                "downsample_channels": [32, 32],
            },
            "encoder_config": {
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "image_size": side,
                "patch_size": patch * 4,
            },
        },
        text_config=text
        | {
            "vocab_size": len(tokenizer),
            "num_key_value_heads": 4,
            "sliding_window": 2,
            "n_routed_experts": 4,
            "n_shared_experts": 1,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
        },
        image_token_id=tokenizer.image_token_id,
    )
    model = tiny_model(hf.UnlimitedOcrForConditionalGeneration, config)
    return Tiny(
        model,
        processor,
        tokenizer.image_token_id,
        "<image>",
        # Once the window slides, Transformers' mask lies one key too far on: the last padding token is seen, and
        # what the layers keep of it differs between SDPA and eager attention. Within the window all is well.
        padded=False,
        prompt_stays=True,
        sizes=(*SIZES, (40, 46)),  # without tiles
        options=({"crop_to_patches": False},),
        # Two padded 3 x 3 convolutions of stride 2 look 3/8 of a token up and left of their cell, and random kernels
        # do not weigh their window evenly.
        largest_bias=0.6,
    )
