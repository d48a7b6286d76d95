"""Janus and DeepSeek-VL: the picture scaled into a square and padded on both sides of its shorter edge."""

from __future__ import annotations

from typing import Any

import transformers as hf

from tests.conformance.tiny import TEXT, Tiny, byte_tokenizer, case, tiny_model

SIDE, PATCH = 96, 6  # 16 x 16 tokens: half of them are padding
SIZE = {"height": SIDE, "width": SIDE}
N_TOKENS = (SIDE // PATCH) ** 2
SIGLIP = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": SIDE,
    "patch_size": PATCH,
}


def llama(tokenizer: Any) -> dict[str, Any]:
    return TEXT | {"model_type": "llama", "vocab_size": len(tokenizer)}


@case("deepseek_vl")
def deepseek_vl() -> Tiny:
    tokenizer = byte_tokenizer(image_token="<image>")
    processor = hf.DeepseekVLProcessor(hf.DeepseekVLImageProcessorPil(size=SIZE), tokenizer, num_image_tokens=N_TOKENS)
    config = hf.DeepseekVLConfig(
        vision_config=SIGLIP, text_config=llama(tokenizer), image_token_id=tokenizer.image_token_id
    )
    model = tiny_model(hf.DeepseekVLForConditionalGeneration, config)
    return Tiny(model, processor, tokenizer.image_token_id, "<image>")


@case("deepseek_vl_hybrid")
def deepseek_vl_hybrid() -> Tiny:
    """Two towers, SigLIP at low and SAM at high resolution, added position by position."""
    tokenizer = byte_tokenizer(image_token="<image>")
    image_processor = hf.DeepseekVLHybridImageProcessorPil(size=SIZE, high_res_size={"height": 192, "width": 192})
    processor = hf.DeepseekVLHybridProcessor(image_processor, tokenizer, num_image_tokens=N_TOKENS)
    config = hf.DeepseekVLHybridConfig(
        vision_config=SIGLIP,
        high_res_vision_config={
            "hidden_size": 32,
            "output_channels": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 192,
            "patch_size": 8,
            "window_size": 6,
            "global_attn_indexes": [1],
            "mlp_dim": 48,
        },
        text_config=llama(tokenizer),
        image_token_id=tokenizer.image_token_id,
    )
    model = tiny_model(hf.DeepseekVLHybridForConditionalGeneration, config)
    # Two 3 x 3 convolutions of stride 2 and padding 1 shrink SAM's map: their window lies 3/8 of a token up and left.
    return Tiny(model, processor, tokenizer.image_token_id, "<image>", largest_bias=0.6)


@case("janus")
def janus() -> Tiny:
    tokenizer = byte_tokenizer(image_token="<image>", boi_token="<begin_of_image>", eoi_token="<end_of_image>")
    processor = hf.JanusProcessor(hf.JanusImageProcessorPil(size=SIZE), tokenizer, num_image_tokens=N_TOKENS)
    config = hf.JanusConfig(
        vision_config={
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": SIDE,
            "patch_size": PATCH,
            "mlp_ratio": 2.0,
            "projection_dim": 64,
            "num_image_tokens": N_TOKENS,
        },
        # The part that draws pictures; questions about a picture do not use it.
        vq_config={
            "embed_dim": 8,
            "num_embeddings": 16,
            "latent_channels": 32,
            "base_channels": 32,
            "channel_multiplier": [1, 1],
            "num_res_blocks": 1,
            "projection_dim": 64,
            "image_token_embed_dim": 64,
        },
        text_config=llama(tokenizer),
        image_token_id=tokenizer.image_token_id,
    )
    model = tiny_model(hf.JanusForConditionalGeneration, config)
    return Tiny(model, processor, tokenizer.image_token_id, "<image>")
