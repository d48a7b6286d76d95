"""Decoders of many makers behind the picture path of Qwen: mixtures of experts, omni models (their thinkers), and
language models of their own with a vision tower of this lineage."""

from __future__ import annotations

from typing import Any

import transformers as hf

from tests.conformance.models.qwen_vl import (
    MARK,
    MROPE,
    QWEN3_VISION,
    picture_processor,
    qwen3,
    qwen_processor,
    qwen_token_ids,
    qwen_tokenizer,
)
from tests.conformance.tiny import TEXT, Tiny, byte_tokenizer, case, tiny_model, without

SECTIONS = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
WINDOWED_VISION = {key: value for key, value in QWEN3_VISION.items() if key != "num_position_embeddings"} | {
    "window_size": 32,
    "fullatt_block_indexes": [1],
}
SLIDING = {"sliding_window": 48, "layer_types": ["sliding_attention"] * 3 + ["full_attention"]}


@case("qwen3_vl_moe")
def qwen3_vl_moe() -> Tiny:
    vision = {"deepstack_visual_indexes": [0, 1]}
    return qwen3(hf.Qwen3VLMoeForConditionalGeneration, hf.Qwen3VLMoeConfig, vision, EXPERTS)


@case("qwen3_5_moe")
def qwen3_5_moe() -> Tiny:
    text = EXPERTS | {
        "shared_expert_intermediate_size": 32,
        "layer_types": ["linear_attention", "linear_attention", "linear_attention", "full_attention"],
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 16,
        "linear_value_head_dim": 16,
    }
    return qwen3(hf.Qwen3_5MoeForConditionalGeneration, hf.Qwen3_5MoeConfig, {}, text, layers=(3,))


@case("cosmos3_omni")
def cosmos3_omni() -> Tiny:
    vision = {"deepstack_visual_indexes": [0, 1]}
    return qwen3(hf.Cosmos3OmniForConditionalGeneration, hf.Cosmos3OmniConfig, vision, {})


@case("cohere_compass")
def cohere_compass() -> Tiny:
    """Sliding layers with rotary positions, full ones without."""
    tokenizer = qwen_tokenizer(str.upper)
    processor = without(hf.CohereCompassProcessor)(picture_processor(hf.CohereCompassImageProcessorPil), tokenizer)
    text = {key: value for key, value in TEXT.items() if key != "head_dim"}
    config = hf.CohereCompassConfig(
        vision_config=QWEN3_VISION | {"deepstack_visual_indexes": [0, 1]},
        text_config=text
        | SLIDING
        | {"vocab_size": len(tokenizer), "rope_parameters": {"sliding_attention": MROPE, "full_attention": None}},
        **qwen_token_ids(tokenizer),
    )
    model = tiny_model(hf.CohereCompassForConditionalGeneration, config)
    return Tiny(model, processor, tokenizer.image_token_id, MARK.upper())


@case("exaone4_5")
def exaone4_5() -> Tiny:
    """A windowed tower with grouped heads; sliding layers with rotary positions, full ones without."""
    processor = qwen_processor(hf.Exaone4_5_Processor)
    tokenizer = processor.tokenizer
    config = hf.Exaone4_5_Config(
        vision_config=WINDOWED_VISION | {"num_key_value_heads": 1},
        text_config=TEXT | SLIDING | {"model_type": "exaone4", "vocab_size": len(tokenizer)},
        image_token_id=tokenizer.image_token_id,
        video_token_id=tokenizer.video_token_id,
    )
    model = tiny_model(hf.Exaone4_5_ForConditionalGeneration, config)
    return Tiny(model, processor, tokenizer.image_token_id, MARK)


@case("hyperclovax_vision_v2")
def hyperclovax_vision_v2() -> Tiny:
    processor = qwen_processor(hf.HyperCLOVAXVisionV2Processor)
    tokenizer = processor.tokenizer
    config = hf.HyperCLOVAXVisionV2Config(
        vision_config=WINDOWED_VISION | {"model_type": "qwen2_5_vl_vision"},
        text_config=TEXT | {"model_type": "hyperclovax", "vocab_size": len(tokenizer), "attention_multiplier": 0.25},
        image_token_id=tokenizer.image_token_id,
        video_token_id=tokenizer.video_token_id,
    )
    model = tiny_model(hf.HyperCLOVAXVisionV2ForConditionalGeneration, config)
    return Tiny(model, processor, tokenizer.image_token_id, MARK)


def omni_processor(processor_class: Any) -> Any:
    tokenizer = byte_tokenizer(
        image_token="<|image_pad|>",
        video_token="<|video_pad|>",
        audio_token="<|audio_pad|>",
        vision_bos_token="<|vision_start|>",
        vision_eos_token="<|vision_end|>",
        audio_bos_token="<|audio_start|>",
        audio_eos_token="<|audio_end|>",
    )
    return without(processor_class, "video_processor", "feature_extractor")(picture_processor(), tokenizer=tokenizer)


OMNI_AUDIO = {
    "encoder_layers": 1,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 48,
    "d_model": 32,
    "num_mel_bins": 16,
    "output_dim": 64,
}


@case("qwen2_5_omni_thinker")
def qwen2_5_omni_thinker() -> Tiny:
    processor = omni_processor(hf.Qwen2_5OmniProcessor)
    tokenizer = processor.tokenizer
    text = {key: value for key, value in TEXT.items() if key != "head_dim"}
    window = {"use_sliding_window": True, "sliding_window": 48, "max_window_layers": 2}
    config = hf.Qwen2_5OmniThinkerConfig(
        vision_config=WINDOWED_VISION,
        text_config=text | window | {"vocab_size": len(tokenizer), "rope_parameters": SECTIONS},
        audio_config=OMNI_AUDIO,
        image_token_index=tokenizer.image_token_id,
        video_token_index=tokenizer.video_token_id,
        audio_token_index=tokenizer.audio_token_id,
        audio_start_token_id=tokenizer.audio_bos_token_id,
        audio_end_token_id=tokenizer.audio_eos_token_id,
        vision_start_token_id=tokenizer.vision_bos_token_id,
    )
    model = tiny_model(hf.Qwen2_5OmniThinkerForConditionalGeneration, config)
    return Tiny(model, processor, tokenizer.image_token_id, MARK)


@case("qwen3_omni_moe_thinker")
def qwen3_omni_moe_thinker() -> Tiny:
    processor = omni_processor(hf.Qwen3OmniMoeProcessor)
    tokenizer = processor.tokenizer
    config = hf.Qwen3OmniMoeThinkerConfig(
        vision_config=QWEN3_VISION | {"deepstack_visual_indexes": [0, 1]},
        text_config=TEXT | EXPERTS | {"vocab_size": len(tokenizer), "rope_parameters": MROPE},
        audio_config=OMNI_AUDIO | {"downsample_hidden_size": 8},
        image_token_id=tokenizer.image_token_id,
        video_token_id=tokenizer.video_token_id,
        audio_token_id=tokenizer.audio_token_id,
        audio_start_token_id=tokenizer.audio_bos_token_id,
        vision_start_token_id=tokenizer.vision_bos_token_id,
    )
    model = tiny_model(hf.Qwen3OmniMoeThinkerForConditionalGeneration, config)
    return Tiny(model, processor, tokenizer.image_token_id, MARK)
