"""Qwen2-VL to Qwen3.5: M-RoPE, 2 × 2 patches merged into a token; Qwen2.5 with a windowed tower, Qwen3 with deepstack,
Qwen3.5 with linear attention in three layers of four."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import transformers as hf

from tests import families
from tests.conformance.tiny import TEXT, Tiny, byte_tokenizer, case, tiny_model, without

MARK = "<|vision_start|><|image_pad|><|vision_end|>"


def qwen_tokenizer(letters: Callable[[str], str] = str.lower) -> Any:
    return byte_tokenizer(
        image_token=letters("<|image_pad|>"),
        video_token=letters("<|video_pad|>"),
        vision_bos_token=letters("<|vision_start|>"),
        vision_eos_token=letters("<|vision_end|>"),
    )


def picture_processor(image_processor_class: Any = hf.Qwen2VLImageProcessorPil, **options: Any) -> Any:
    """Pictures at their own resolution, 4-pixel patches of which 2 × 2 make a token."""
    options = {"patch_size": 4, "merge_size": 2, "temporal_patch_size": 2} | options
    return image_processor_class(size={"shortest_edge": 32**2, "longest_edge": 96**2}, **options)


def qwen_processor(processor_class: Any) -> Any:
    """A processor of this lineage, video left out."""
    return without(processor_class)(picture_processor(), qwen_tokenizer())


def qwen_token_ids(tokenizer: Any) -> dict[str, int]:
    return {
        "image_token_id": tokenizer.image_token_id,
        "video_token_id": tokenizer.video_token_id,
        "vision_start_token_id": tokenizer.vision_bos_token_id,
        "vision_end_token_id": tokenizer.vision_eos_token_id,
    }


@case("qwen2_vl")
def qwen2_vl() -> Tiny:
    tiny = families.qwen2_vl()
    return Tiny(tiny.model, tiny.processor, tiny.image_token_id, MARK)


@case("qwen2_5_vl")
def qwen2_5_vl() -> Tiny:
    tiny = families.qwen2_5_vl()
    return Tiny(tiny.model, tiny.processor, tiny.image_token_id, MARK)


QWEN3_VISION = {
    "depth": 2,
    "hidden_size": 32,
    "out_hidden_size": 64,
    "intermediate_size": 48,
    "num_heads": 2,
    "patch_size": 4,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "num_position_embeddings": 64,
}
MROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 2, 2], "mrope_interleaved": True}


def qwen3(
    model_class: Any,
    config_class: Any,
    vision: dict[str, Any],
    text: dict[str, Any],
    layers: tuple[int, ...] | None = None,
) -> Tiny:
    processor = qwen_processor(hf.Qwen3VLProcessor)
    tokenizer = processor.tokenizer
    config = config_class(
        vision_config=QWEN3_VISION | vision,
        text_config=TEXT | {"vocab_size": len(tokenizer), "rope_parameters": MROPE} | text,
        **qwen_token_ids(tokenizer),
    )
    return Tiny(tiny_model(model_class, config), processor, tokenizer.image_token_id, MARK, layers=layers)


@case("qwen3_vl")
def qwen3_vl() -> Tiny:
    return qwen3(hf.Qwen3VLForConditionalGeneration, hf.Qwen3VLConfig, {"deepstack_visual_indexes": [0, 1]}, {})


@case("qwen3_5")
def qwen3_5() -> Tiny:
    return qwen3(
        hf.Qwen3_5ForConditionalGeneration,
        hf.Qwen3_5Config,
        {},
        {
            "layer_types": ["linear_attention", "linear_attention", "linear_attention", "full_attention"],
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "linear_key_head_dim": 16,
            "linear_value_head_dim": 16,
        },
        layers=(3,),
    )
