"""Mistral 3 and LightOnOCR on Pixtral's tower: pictures at their own aspect ratio, 2 x 2 patches merged; Mistral ends
each row with a token that is no placeholder."""

from __future__ import annotations

from typing import Any

import transformers as hf

from tests.conformance.tiny import TEXT, Tiny, byte_tokenizer, case, tiny_model

PATCH, MERGE = 4, 2
PIXTRAL = {
    "model_type": "pixtral",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 96,
    "patch_size": PATCH,
}


def pixtral_processor(processor_class: Any, patch: int) -> Any:
    tokenizer = byte_tokenizer(image_token="[IMG]", image_break_token="[IMG_BREAK]", image_end_token="[IMG_END]")
    image_processor = hf.PixtralImageProcessorPil(size={"longest_edge": 96}, patch_size=patch)
    return processor_class(image_processor, tokenizer, patch_size=PATCH, spatial_merge_size=MERGE)


@case("mistral3")
def mistral3() -> Tiny:
    processor = pixtral_processor(hf.PixtralProcessor, PATCH)
    tokenizer = processor.tokenizer
    config = hf.Mistral3Config(
        vision_config=PIXTRAL,
        text_config=TEXT | {"model_type": "mistral", "vocab_size": len(tokenizer), "sliding_window": 48},
        spatial_merge_size=MERGE,
        image_token_index=tokenizer.image_token_id,
    )
    model = tiny_model(hf.Mistral3ForConditionalGeneration, config)
    return Tiny(model, processor, tokenizer.image_token_id, "[IMG]")


@case("lighton_ocr")
def lighton_ocr() -> Tiny:
    processor = pixtral_processor(hf.LightOnOcrProcessor, PATCH * MERGE)
    tokenizer = processor.tokenizer
    config = hf.LightOnOcrConfig(
        vision_config=PIXTRAL,
        text_config=TEXT | {"model_type": "qwen3", "vocab_size": len(tokenizer)},
        spatial_merge_size=MERGE,
        image_token_id=tokenizer.image_token_id,
    )
    model = tiny_model(hf.LightOnOcrForConditionalGeneration, config)
    return Tiny(model, processor, tokenizer.image_token_id, "[IMG]")
