"""Further families that keep a picture's own resolution and return ``image_grid_thw``, each with its own tower."""

from __future__ import annotations

from typing import Any

import transformers as hf

from tests.conformance.models.qwen_vl import MARK, MROPE, picture_processor
from tests.conformance.tiny import TEXT, Tiny, byte_tokenizer, case, tiny_model, without

WITHOUT_HEAD_DIM = {key: value for key, value in TEXT.items() if key != "head_dim"}
TOWER = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "patch_size": 4,
}


def vision_tokenizer() -> Any:
    return byte_tokenizer(
        image_token="<|image_pad|>",
        video_token="<|video_pad|>",
        vision_start_token="<|vision_start|>",
        vision_end_token="<|vision_end|>",
    )


def vision_token_ids(tokenizer: Any) -> dict[str, int]:
    names = ("image", "video", "vision_start", "vision_end")
    return {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in names}


@case("ernie4_5_vl_moe")
def ernie4_5_vl_moe() -> Tiny:
    """Text and picture tokens go to experts of their own; rotary positions take height and width in turns."""
    names = ("image", "image_start", "image_end", "video", "video_start", "video_end")
    tokenizer = byte_tokenizer(**{f"{name}_token": f"<|{name}|>" for name in names})
    image_processor = picture_processor(hf.Ernie4_5_VLMoeImageProcessorPil, temporal_patch_size=1)
    processor = without(hf.Ernie4_5_VLMoeProcessor)(image_processor, tokenizer)
    config = hf.Ernie4_5_VLMoeConfig(
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 2,
            "patch_size": 4,
            "spatial_merge_size": 2,
            "temporal_merge_size": 2,
        },
        text_config=WITHOUT_HEAD_DIM
        | {
            "vocab_size": len(tokenizer),
            "moe_num_experts": 4,
            "moe_k": 2,
            "moe_intermediate_size": [32, 16],
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [3, 3, 2]},
        },
        **{f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in names},
    )
    model = tiny_model(hf.Ernie4_5_VLMoeForConditionalGeneration, config)
    return Tiny(model, processor, tokenizer.image_token_id, "<|image_start|><|image|><|image_end|>")


@case("paddleocr_vl")
def paddleocr_vl() -> Tiny:
    tokenizer = vision_tokenizer()
    image_processor = picture_processor(hf.PaddleOCRVLImageProcessorPil, temporal_patch_size=1)
    config = hf.PaddleOCRVLConfig(
        vision_config=TOWER | {"image_size": 48, "spatial_merge_size": 2},
        text_config=TEXT
        | {
            "vocab_size": len(tokenizer),
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]},
        },
        **vision_token_ids(tokenizer),
    )
    model = tiny_model(hf.PaddleOCRVLForConditionalGeneration, config)
    processor = hf.PaddleOCRVLProcessor(image_processor, tokenizer)
    return Tiny(model, processor, tokenizer.image_token_id, MARK)


@case("video_llama_3")
def video_llama_3() -> Tiny:
    """The image processor merges nothing by default; with a merge, features are resized bilinearly."""
    tokenizer = vision_tokenizer()
    image_processor = picture_processor(hf.VideoLlama3ImageProcessorPil, temporal_patch_size=1)
    config = hf.VideoLlama3Config(
        vision_config=TOWER,
        text_config=WITHOUT_HEAD_DIM | {"model_type": "qwen2", "vocab_size": len(tokenizer)},
        image_token_id=tokenizer.image_token_id,
        video_token_id=tokenizer.video_token_id,
    )
    model = tiny_model(hf.VideoLlama3ForConditionalGeneration, config)
    processor = without(hf.VideoLlama3Processor)(image_processor, tokenizer)
    return Tiny(model, processor, tokenizer.image_token_id, MARK)


@case("cosmos3_edge")
def cosmos3_edge() -> Tiny:
    tokenizer = vision_tokenizer()
    image_processor = picture_processor(hf.Cosmos3EdgeImageProcessorPil, temporal_patch_size=1)
    config = hf.Cosmos3EdgeConfig(
        vision_config=TOWER | {"num_patches": 64, "spatial_merge_size": 2},
        text_config=TEXT | {"vocab_size": len(tokenizer), "rope_parameters": MROPE},
        projector_hidden_size=64,
        **vision_token_ids(tokenizer),
    )
    model = tiny_model(hf.Cosmos3EdgeForConditionalGeneration, config)
    processor = without(hf.Cosmos3EdgeProcessor)(image_processor, tokenizer)
    processor.return_mm_token_type_ids = True  # M-RoPE needs them, and this processor's class does not ask for them
    return Tiny(model, processor, tokenizer.image_token_id, MARK)


@case("lfm3_vl")
def lfm3_vl() -> Tiny:
    """Convolutions, sliding and full attention in turns."""
    processor = without(hf.Lfm3VlProcessor)(picture_processor(), vision_tokenizer())
    tokenizer = processor.tokenizer
    config = hf.Lfm3VlConfig(
        vision_config=TOWER
        | {"num_key_value_heads": 1, "layer_types": ["conv", "full_attention"], "spatial_merge_size": 2},
        text_config=TEXT
        | {
            "model_type": "lfm3",
            "vocab_size": len(tokenizer),
            "layer_types": ["conv", "sliding_attention", "conv", "full_attention"],
            "sliding_window": 48,
        },
        projector_hidden_size=64,
        **vision_token_ids(tokenizer),
    )
    model = tiny_model(hf.Lfm3VlForConditionalGeneration, config)
    return Tiny(model, processor, tokenizer.image_token_id, MARK, layers=(1, 3))
