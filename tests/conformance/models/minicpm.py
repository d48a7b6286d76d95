"""MiniCPM-V and MiniCPM-OCR: an overview, then slices; linear attention in three layers of four."""

from __future__ import annotations

from typing import Any

import transformers as hf

from tests.conformance.tiny import TEXT, Tiny, byte_tokenizer, case, tiny_model

LINEAR = {
    "model_type": "qwen3_5_text",
    "layer_types": ["linear_attention", "linear_attention", "linear_attention", "full_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 1e4,
        "mrope_section": [4, 2, 2],
        "mrope_interleaved": True,
    },
}


def minicpm(
    family: str, image_processor_class: Any, video_processor_class: Any, patch: int, mode: str, **ids: Any
) -> Tiny:
    marks = {
        f"{part}_{end}_token": f"<{'/' * (end == 'end')}{part}>"
        for part in ("image", "slice", "image_id")
        for end in ("start", "end")
    }
    tokenizer = byte_tokenizer(image_token="<|image_pad|>", video_token="<|video_pad|>", **marks)
    # With 4 x 4 patches a token of this size, every overview and slice has about 6 x 6 tokens.
    options = {"patch_size": patch, "scale_resolution": 48, "max_slice_nums": 6, "downsample_mode": mode}
    image_processor = image_processor_class(**options)
    processor_class = getattr(hf, f"{family}Processor")
    processor = processor_class(image_processor, video_processor_class(**options), tokenizer)
    config = getattr(hf, f"{family}Config")(
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 64,
            "patch_size": patch,
        },
        text_config=TEXT | LINEAR | {"vocab_size": len(tokenizer)},
        insert_layer_id=0,
        image_token_id=tokenizer.image_token_id,
        video_token_id=tokenizer.video_token_id,
        downsample_mode=mode,
        **{name: tokenizer.convert_tokens_to_ids(token) for name, token in ids.items()},
    )
    model = tiny_model(getattr(hf, f"{family}ForConditionalGeneration"), config)
    return Tiny(
        model, processor, tokenizer.image_token_id, "<|image_pad|>", layers=(3,), options=({"slice_mode": False},)
    )


@case("minicpmv4_6")
def minicpmv4_6() -> Tiny:
    return minicpm("MiniCPMV4_6", hf.MiniCPMV4_6ImageProcessorPil, hf.MiniCPMV4_6VideoProcessor, 2, "16x")


@case("minicpmv4_7")
def minicpmv4_7() -> Tiny:
    ids = {
        "image_start_id": "<image>",
        "image_end_id": "</image>",
        "slice_start_id": "<slice>",
        "slice_end_id": "</slice>",
        "newline_id": "Ċ",  # a newline in the alphabet of byte-level tokenizers
    }
    return minicpm("MiniCPMV4_7", hf.MiniCPMV4_6ImageProcessorPil, hf.MiniCPMV4_6VideoProcessor, 2, "16x", **ids)


@case("minicpm_ocr")
def minicpm_ocr() -> Tiny:
    return minicpm("MiniCPMOcr", hf.MiniCPMOcrImageProcessor, hf.MiniCPMOcrVideoProcessor, 4, "4x")
