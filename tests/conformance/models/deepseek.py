"""Multi-head latent attention: the cache holds a latent, keys are expanded before the attention function."""

from __future__ import annotations

import transformers as hf

from tests.conformance.tiny import TEXT, Tiny, byte_tokenizer, case, tiny_model, without


@case("kimi_k25")
def kimi_k25() -> Tiny:
    tokenizer = byte_tokenizer(image_token="<|media_pad|>", video_token="<|video_pad|>")
    image_processor = hf.Kimi_K25ImageProcessor(patch_size=4, merge_size=2, size={"max_height": 20, "max_width": 20})
    processor = without(hf.Kimi_K25Processor)(image_processor, tokenizer)
    text = {key: value for key, value in TEXT.items() if key != "head_dim"} | {
        "model_type": "deepseek_v3",
        "vocab_size": len(tokenizer),
        "num_key_value_heads": 4,
        "q_lora_rank": 32,
        "kv_lora_rank": 16,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 16,
        "v_head_dim": 16,
        "first_k_dense_replace": 1,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "n_group": 1,
        "topk_group": 1,
        "moe_intermediate_size": 32,
    }
    config = hf.Kimi_K25Config(
        vision_config={
            "patch_size": 4,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "pos_emb_height": 8,
            "pos_emb_width": 8,
        },
        text_config=text,
        projection_hidden_size=32,
        image_token_id=tokenizer.image_token_id,
        video_token_id=tokenizer.video_token_id,
    )
    model = tiny_model(hf.Kimi_K25ForConditionalGeneration, config)
    return Tiny(model, processor, tokenizer.image_token_id, "<|media_pad|>")
