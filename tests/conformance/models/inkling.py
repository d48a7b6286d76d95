"""Inkling and its successors: position bias added to the scores, short convolutions on keys and values, squares of
pixels as tokens; in the last one a loop over layers."""

from __future__ import annotations

from typing import Any

import transformers as hf

from tests.conformance.tiny import TEXT, Tiny, byte_tokenizer, case, tiny_model, without

SIDE = 8
INKLING_TEXT: dict[str, Any] = {
    **TEXT,
    "swa_num_attention_heads": 4,
    "swa_num_key_value_heads": 2,
    "swa_head_dim": 16,
    "sliding_window_size": 48,
    "d_rel": 8,
    "rel_extent": 64,
    "moe_intermediate_size": 32,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "layer_types": ["hybrid_sliding", "hybrid", "hybrid_sliding", "hybrid"],
}


@case("inkling_mm_model")
def inkling() -> Tiny:
    tokenizer = byte_tokenizer(
        image_token="<|unused_200054|>",
        audio_token="<|unused_200053|>",
        image_bos_token="<|content_image|>",
        audio_bos_token="<|content_audio_input|>",
    )
    image_processor = hf.InklingImageProcessor(size={"height": SIDE, "width": SIDE})
    processor = without(hf.InklingProcessor, "feature_extractor")(None, image_processor, tokenizer)
    config = hf.InklingConfig(
        vision_config={"patch_size": SIDE, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2},
        audio_config={"n_mel_bins": 4, "mel_vocab_size": 16},
        text_config=INKLING_TEXT | {"vocab_size": len(tokenizer), "logits_mup_width_multiplier": 1.0},
        image_token_id=tokenizer.image_token_id,
        audio_token_id=tokenizer.audio_token_id,
        image_bos_token_id=tokenizer.image_bos_token_id,
        audio_bos_token_id=tokenizer.audio_bos_token_id,
    )
    model = tiny_model(hf.InklingForConditionalGeneration, config)
    return Tiny(model, processor, tokenizer.image_token_id, "<|content_image|><|unused_200054|>")


def inkling2_like(model_class: Any, config_class: Any, **text_config: Any) -> Tiny:
    tokenizer = byte_tokenizer(image_token="<|unused_200054|>")
    image_processor = hf.Inkling2ImageProcessor(size={"height": SIDE, "width": SIDE})
    processor = hf.Inkling2Processor(image_processor, tokenizer)
    text = {key: value for key, value in INKLING_TEXT.items() if key != "intermediate_size"}
    config = config_class(
        vision_config={
            "patch_size": SIDE // 2,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "posemb_grid_size": 8,
            "projection_hidden_dim": 32,
            "text_hidden_size": 64,
        },
        text_config=text
        | {"vocab_size": len(tokenizer), "unpadded_vocab_size": len(tokenizer), "n_layers_per_attn_res_block": 2}
        | text_config,
        image_token_id=tokenizer.image_token_id,
    )
    model = tiny_model(model_class, config)
    return Tiny(model, processor, tokenizer.image_token_id, "<|unused_200054|>")


@case("inkling2")
def inkling2() -> Tiny:
    return inkling2_like(hf.Inkling2ForConditionalGeneration, hf.Inkling2Config)


@case("inkling2_loop")
def inkling2_loop() -> Tiny:
    """Layers 2 and 3 run three times: ten layers in a pass."""
    loop = {"loop_layer_index_start": 2, "loop_layer_index_end": 4, "loop_num_passes": 3, "loop_gate_rank": 8}
    loop |= {"num_hidden_layers": 6, "layer_types": ["hybrid_sliding", "hybrid"] * 3}
    return inkling2_like(hf.Inkling2LoopForConditionalGeneration, hf.Inkling2LoopConfig, **loop)
