"""LLaVA-NeXT-Video and LLaVA-OneVision: the whole picture, then a mosaic of tiles without its padding."""

from __future__ import annotations

import transformers as hf

from tests import families
from tests.conformance.tiny import TEXT, Tiny, byte_tokenizer, case, tiny_model, without

SIDE, PATCH = 48, 6
SIZE = {"height": SIDE, "width": SIDE}
PINPOINTS = [[48, 96], [96, 48], [96, 96], [48, 144], [144, 48]]


@case("llava_next_video")
def llava_next_video() -> Tiny:
    tokenizer = byte_tokenizer(image_token="<image>", video_token="<video>")
    image_processor = hf.LlavaNextImageProcessorPil(
        size={"shortest_edge": SIDE}, crop_size=SIZE, image_grid_pinpoints=PINPOINTS
    )
    processor = without(hf.LlavaNextVideoProcessor)(
        image_processor=image_processor,
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    config = hf.LlavaNextVideoConfig(
        vision_config=families.clip_config(),
        text_config=TEXT | {"model_type": "llama", "vocab_size": len(tokenizer)},
        image_token_index=tokenizer.image_token_id,
        video_token_index=tokenizer.video_token_id,
        image_grid_pinpoints=PINPOINTS,
        image_seq_length=64,
    )
    model = tiny_model(hf.LlavaNextVideoForConditionalGeneration, config)
    return Tiny(model, processor, tokenizer.image_token_id, "<image>")


@case("llava_onevision")
def llava_onevision() -> Tiny:
    tokenizer = byte_tokenizer(image_token="<image>", video_token="<video>")
    image_processor = hf.LlavaOnevisionImageProcessorPil(size=SIZE, image_grid_pinpoints=PINPOINTS)
    # At most two tiles' worth of tokens, so that pictures of three and four tiles are scaled down.
    processor = without(hf.LlavaOnevisionProcessor)(
        image_processor,
        tokenizer,
        num_image_tokens=64,
        vision_feature_select_strategy="full",
        vision_aspect_ratio="anyres_max_2",
    )
    config = hf.LlavaOnevisionConfig(
        vision_config={
            "model_type": "siglip_vision_model",
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": SIDE,
            "patch_size": PATCH,
            "vision_use_head": False,
        },
        text_config={key: value for key, value in TEXT.items() if key != "head_dim"}
        | {"model_type": "qwen2", "vocab_size": len(tokenizer)},
        image_token_index=tokenizer.image_token_id,
        video_token_index=tokenizer.video_token_id,
        image_grid_pinpoints=PINPOINTS,
        vision_aspect_ratio="anyres_max_2",
    )
    model = tiny_model(hf.LlavaOnevisionForConditionalGeneration, config)
    return Tiny(model, processor, tokenizer.image_token_id, "<image>")
