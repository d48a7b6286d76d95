"""GLM-4.1V to GLM-OCR: M-RoPE, 2 × 2 patches merged by a convolution; two mixtures of experts among them."""

from __future__ import annotations

from typing import Any

import transformers as hf

from tests.conformance.models.qwen_vl import picture_processor
from tests.conformance.tiny import TEXT, Tiny, byte_tokenizer, case, tiny_model, without

MARK = "<|begin_of_image|><|image|><|end_of_image|>"

VISION = {
    "depth": 2,
    "hidden_size": 32,
    "out_hidden_size": 64,
    "intermediate_size": 48,
    "num_heads": 2,
    "image_size": 48,
    "patch_size": 4,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
}
PARTIAL = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2], "partial_rotary_factor": 0.5}
WITHOUT_HEAD_DIM = {key: value for key, value in TEXT.items() if key != "head_dim"}


def glm(model_class: Any, config_class: Any, parts: tuple[Any, Any], text: dict[str, Any]) -> Tiny:
    tokenizer = byte_tokenizer(
        image_token="<|image|>",
        video_token="<|video|>",
        image_start_token="<|begin_of_image|>",
        image_end_token="<|end_of_image|>",
        video_start_token="<|begin_of_video|>",
        video_end_token="<|end_of_video|>",
    )
    processor_class, image_processor_class = parts
    processor = without(processor_class)(picture_processor(image_processor_class), tokenizer)
    names = ("image", "video", "image_start", "image_end", "video_start", "video_end")
    config = config_class(
        vision_config=VISION,
        text_config={"vocab_size": len(tokenizer), "rope_parameters": PARTIAL} | text,
        **{f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in names},
    )
    return Tiny(tiny_model(model_class, config), processor, tokenizer.image_token_id, MARK)


GLM4V = (hf.Glm4vProcessor, hf.Glm4vImageProcessorPil)
GLM46V = (hf.Glm46VProcessor, hf.Glm46VImageProcessorPil)
GLMGA = (hf.Glm46VProcessor, hf.GlmgaImageProcessorPil)


@case("glm4v")
def glm4v() -> Tiny:
    return glm(hf.Glm4vForConditionalGeneration, hf.Glm4vConfig, GLM4V, WITHOUT_HEAD_DIM)


@case("glm46v")
def glm46v() -> Tiny:
    return glm(hf.Glm46VForConditionalGeneration, hf.Glm46VConfig, GLM46V, WITHOUT_HEAD_DIM)


@case("glmga")
def glmga() -> Tiny:
    return glm(hf.Glm46VForConditionalGeneration, hf.GlmgaConfig, GLMGA, WITHOUT_HEAD_DIM)


@case("glm_ocr")
def glm_ocr() -> Tiny:
    return glm(hf.GlmOcrForConditionalGeneration, hf.GlmOcrConfig, GLM46V, WITHOUT_HEAD_DIM)


@case("glm4v_moe")
def glm4v_moe() -> Tiny:
    experts = {
        "n_routed_experts": 4,
        "n_shared_experts": 1,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "first_k_dense_replace": 1,
    }
    return glm(hf.Glm4vMoeForConditionalGeneration, hf.Glm4vMoeConfig, GLM4V, WITHOUT_HEAD_DIM | experts)
