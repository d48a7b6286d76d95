"""Perception LM: the whole picture, then tiles, pooled 2 x 2."""

from __future__ import annotations

import transformers as hf

from tests.conformance.tiny import TEXT, Tiny, byte_tokenizer, case, tiny_model, without


@case("perception_lm")
def perception_lm() -> Tiny:
    side, patch, pool = 48, 4, 2  # 6 x 6 tokens per tile
    tokenizer = byte_tokenizer(image_token="<|image|>", video_token="<|video|>")
    # Its processor stacks pictures, so all need as many tiles: enlarged to six, like all pictures of the suite.
    image_processor = hf.PerceptionLMImageProcessor(tile_size=side, max_num_tiles=6)
    processor = without(hf.PerceptionLMProcessor)(
        image_processor=image_processor, tokenizer=tokenizer, patch_size=patch, pooling_ratio=pool
    )
    config = hf.PerceptionLMConfig(
        # The released towers come from timm; a SigLIP gives the same raster of patches, without a class token.
        vision_config={
            "model_type": "siglip_vision_model",
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": side,
            "patch_size": patch,
            "vision_use_head": False,
            "model_args": {"embed_dim": 32},
        },
        vision_use_cls_token=False,
        text_config=TEXT | {"model_type": "llama", "vocab_size": len(tokenizer)},
        projector_pooling_ratio=pool,
        image_token_id=tokenizer.image_token_id,
        video_token_id=tokenizer.video_token_id,
    )
    model = tiny_model(hf.PerceptionLMForConditionalGeneration, config)
    return Tiny(model, processor, tokenizer.image_token_id, "<|image|>", options=({"vision_input_type": "vanilla"},))
