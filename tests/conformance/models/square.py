"""One square raster per picture: LLaVA's relatives."""

from __future__ import annotations

from typing import Any

import transformers as hf

from tests.conformance.tiny import TEXT, Tiny, byte_tokenizer, case, tiny_model, without

SIDE, PATCH = 48, 6  # 8 x 8 tokens
SIZE = {"height": SIDE, "width": SIDE}
CLIP = {
    "model_type": "clip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": SIDE,
    "patch_size": PATCH,
}


def llama(tokenizer: Any) -> dict[str, Any]:
    return TEXT | {"model_type": "llama", "vocab_size": len(tokenizer)}


@case("vipllava")
def vipllava() -> Tiny:
    """Features of several layers side by side; LLaVA's processor."""
    tokenizer = byte_tokenizer(image_token="<image>")
    processor = hf.LlavaProcessor(
        hf.CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=SIZE),
        tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    config = hf.VipLlavaConfig(
        vision_config=CLIP,
        text_config=llama(tokenizer),
        vision_feature_layer=[-2, -1],
        image_token_index=tokenizer.image_token_id,
    )
    model = tiny_model(hf.VipLlavaForConditionalGeneration, config)
    return Tiny(model, processor, tokenizer.image_token_id, "<image>\n")


@case("video_llava")
def video_llava() -> Tiny:
    tokenizer = byte_tokenizer(image_token="<image>", video_token="<video>")
    image_processor = hf.VideoLlavaImageProcessor(size={"shortest_edge": SIDE}, crop_size=SIZE)
    processor = without(hf.VideoLlavaProcessor)(image_processor, tokenizer=tokenizer, patch_size=PATCH)
    config = hf.VideoLlavaConfig(
        vision_config=CLIP,
        text_config=llama(tokenizer),
        image_token_index=tokenizer.image_token_id,
        video_token_index=tokenizer.video_token_id,
    )
    model = tiny_model(hf.VideoLlavaForConditionalGeneration, config)
    return Tiny(model, processor, tokenizer.image_token_id, "<image>\n")


@case("fast_vlm")
def fast_vlm() -> Tiny:
    """FastViT comes from timm, which needs torchvision. A ConvNeXt stands for it: it returns a feature map of the same
    form, [B, channels, rows, cols], and what makes tokens of the map is FastVLM's own."""
    tokenizer = byte_tokenizer(image_token="<image>")
    processor = hf.LlavaProcessor(
        hf.CLIPImageProcessorPil(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64}),
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="full",
        num_additional_image_tokens=0,
    )
    vision = hf.ConvNextConfig(patch_size=4, num_stages=2, hidden_sizes=[16, 32], depths=[1, 1])
    vision.hidden_size = 32
    config = hf.FastVlmConfig(
        vision_config=vision,
        text_config={key: value for key, value in TEXT.items() if key != "head_dim"}
        | {"model_type": "qwen2", "vocab_size": len(tokenizer)},
        image_token_index=tokenizer.image_token_id,
    )
    model = tiny_model(hf.FastVlmForConditionalGeneration, config)
    return Tiny(model, processor, tokenizer.image_token_id, "<image>\n")
