"""Attention that picks its keys by an indexer: the selection arrives in the mask, also per head (MiniMax M3)."""

from __future__ import annotations

from typing import Any

import transformers as hf

from tests.conformance.models.qwen_vl import MARK, MROPE, QWEN3_VISION, qwen_processor, qwen_token_ids
from tests.conformance.tiny import TEXT, Tiny, byte_tokenizer, case, tiny_model, without

PLAIN_TEXT = {key: value for key, value in TEXT.items() if key != "head_dim"}
MIXTURE = {
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
    "moe_intermediate_size": 32,
}
LATENT = {
    "num_key_value_heads": 4,
    "q_lora_rank": 32,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 16,
    "v_head_dim": 16,
}
INDEXER = {"index_topk": 32, "index_head_dim": 16, "index_n_heads": 2}  # fewer keys than any prompt has
SIZE = {"shortest_edge": 32**2, "longest_edge": 96**2}


@case("qwen4_exp")
def qwen4_exp() -> Tiny:
    processor = qwen_processor(hf.Qwen3VLProcessor)
    tokenizer = processor.tokenizer
    text = {key: value for key, value in TEXT.items() if key not in ("intermediate_size",)} | {
        "vocab_size": len(tokenizer),
        "rope_parameters": MROPE,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 16,
        "linear_value_head_dim": 16,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 32,
        "hc_count": 2,
        "hc_lowrank": 16,
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 16,
        "indexer_budget": 32,
        "indexer_compress_ratio": 4,
    }
    config = hf.Qwen4ExpConfig(vision_config=QWEN3_VISION, text_config=text, **qwen_token_ids(tokenizer))
    model = tiny_model(hf.Qwen4ExpForConditionalGeneration, config)
    return Tiny(model, processor, tokenizer.image_token_id, MARK, layers=(3,))


@case("dots3_note")
def dots3_note() -> Tiny:
    tokenizer = byte_tokenizer(image_token="<|imgpad|>", video_token="<|video_pad|>", audio_token="<|audio_comp_pad|>")
    image_processor = hf.Qwen2VLImageProcessorPil(patch_size=4, merge_size=2, temporal_patch_size=1, size=SIZE)
    processor = without(hf.Dots3NoteProcessor, "video_processor", "feature_extractor")(image_processor, tokenizer)
    config = hf.Dots3NoteConfig(
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "patch_size": 4,
            "mlp_layer_types": ["dense", "dense"],
            "adapter_in_dim": 32,
            "adapter_out_dim": 64,
        },
        audio_config={
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "downsample_hidden_size": 16,
            "adapter_input_size": 32,
            "adapter_out_dim": 64,
        },
        text_config=TEXT
        | LATENT
        | INDEXER
        | MIXTURE
        | {
            "head_dim": 24,
            "vocab_size": len(tokenizer),
            "shared_experts_intermediate_size": 32,
            "sliding_window": 48,
            "layer_types": ["indexed_attention", "sliding_attention", "sliding_attention", "sliding_attention"],
            "swa_num_attention_heads": 2,
            "swa_num_key_value_heads": 2,
            "swa_q_lora_rank": 32,
            "swa_kv_lora_rank": 16,
            "swa_head_dim": 24,
            "swa_qk_nope_head_dim": 16,
            "swa_v_head_dim": 16,
        },
        image_token_id=tokenizer.image_token_id,
        video_token_id=tokenizer.video_token_id,
        audio_token_id=tokenizer.audio_token_id,
    )
    model = tiny_model(hf.Dots3NoteForConditionalGeneration, config)
    return Tiny(model, processor, tokenizer.image_token_id, "<|imgpad|>")


@case("glm5_next")
def glm5_next() -> Tiny:
    tokenizer = byte_tokenizer(
        image_token="<|image|>",
        video_token="<|video|>",
        image_start_token="<|begin_of_image|>",
        image_end_token="<|end_of_image|>",
        video_start_token="<|begin_of_video|>",
        video_end_token="<|end_of_video|>",
    )
    image_processor = hf.Glm5NextImageProcessorPil(
        patch_size=4, merge_size=2, temporal_patch_size=2, min_image_tokens=16, max_image_tokens=150
    )
    processor = without(hf.Glm5NextProcessor)(image_processor, tokenizer)
    names = ("image", "video", "image_start", "image_end", "video_start", "video_end")
    config = hf.Glm5NextConfig(
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "num_heads": 2,
            "image_size": 64,
            "patch_size": 4,
            "out_hidden_size": 64,
            "intermediate_size": 48,
            "projection_intermediate_size": 48,
        },
        text_config=PLAIN_TEXT
        | LATENT
        | INDEXER
        | MIXTURE
        | {
            "vocab_size": len(tokenizer),
            "qk_rope_head_dim": 0,
            "linear_head_dim": 16,
            "linear_num_heads": 4,
            "hc_mult": 2,
            "hc_sinkhorn_iters": 4,
            "index_kpool": 4,
            "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"],
        },
        **{f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in names},
    )
    model = tiny_model(hf.Glm5NextForConditionalGeneration, config)
    return Tiny(model, processor, tokenizer.image_token_id, "<|begin_of_image|><|image|><|end_of_image|>", layers=(3,))


@case("mistral_large4")
def mistral_large4() -> Tiny:
    tokenizer = byte_tokenizer(image_token="[IMG]", image_break_token="[IMG_BREAK]", image_end_token="[IMG_END]")
    image_processor = hf.PixtralImageProcessorPil(patch_size={"height": 8, "width": 8}, size={"longest_edge": 96})
    processor = hf.PixtralProcessor(image_processor, tokenizer, patch_size=4, spatial_merge_size=2, image_token="[IMG]")
    config = hf.MistralLarge4Config(
        vision_config={
            "model_type": "pixtral",
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "head_dim": 16,
            "image_size": 96,
            "patch_size": 4,
        },
        text_config=TEXT
        | {key: value for key, value in LATENT.items() if key != "q_lora_rank"}
        | INDEXER
        | MIXTURE
        | {"vocab_size": len(tokenizer), "kv_source_layers": [0, 1, 1, 3]},
        image_token_index=tokenizer.image_token_id,
        spatial_merge_size=2,
    )
    model = tiny_model(hf.MistralLarge4ForConditionalGeneration, config)
    return Tiny(model, processor, tokenizer.image_token_id, "[IMG]")


@case("minimax_m3_vl")
def minimax_m3_vl() -> Tiny:
    names: dict[str, Any] = {"image_token": "]<]image[>[", "video_token": "]<]video[>["}
    tokenizer = byte_tokenizer(**names, start="]<]start of image[>[", end="]<]end of image[>[")
    image_processor = hf.MiniMaxM3VLImageProcessor(patch_size=4, merge_size=2, temporal_patch_size=2, size=SIZE)
    processor = without(hf.MiniMaxM3VLProcessor)(image_processor, tokenizer)
    config = hf.MiniMaxM3VLConfig(
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 96,
            "patch_size": 4,
        },
        text_config=TEXT
        | {
            "vocab_size": len(tokenizer),
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "dense_intermediate_size": 96,
            "shared_intermediate_size": 32,
            "intermediate_size": 32,
            "rotary_dim": 8,
            "index_n_heads": 2,
            "index_head_dim": 16,
            "index_block_size": 8,
            "index_topk_blocks": 4,
            "layer_types": ["full_attention", "minimax_m3_sparse", "full_attention", "minimax_m3_sparse"],
            "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"],
        },
        image_token_index=tokenizer.image_token_id,
        video_token_index=tokenizer.video_token_id,
        projector_hidden_size=64,
    )
    model = tiny_model(hf.MiniMaxM3SparseForConditionalGeneration, config)
    # The blocks are anchored to key slots: with left padding this model computes other attention under SDPA than
    # eagerly (6e-2 apart; the captured rows follow SDPA to 1e-8).
    return Tiny(model, processor, tokenizer.image_token_id, "]<]image[>[", padded=False)
