"""PaliGemma (prefix-LM over image and prompt) and Gemma 3 (sliding layers)."""

from __future__ import annotations

import transformers as hf

from tests import families
from tests.conformance.tiny import TEXT, Tiny, byte_tokenizer, case, tiny_model

SIGLIP = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 64,
    "patch_size": 8,
    "vision_use_head": False,
}


@case("gemma3")
def gemma3() -> Tiny:
    tiny = families.gemma3()
    return Tiny(tiny.model, tiny.processor, tiny.image_token_id, "<start_of_image>")


@case("paligemma")
def paligemma() -> Tiny:
    tokenizer = byte_tokenizer(image_token="<image>")
    image_processor = hf.SiglipImageProcessorPil(size={"height": 64, "width": 64})
    image_processor.image_seq_length = 64
    processor = hf.PaliGemmaProcessor(image_processor, tokenizer)
    config = hf.PaliGemmaConfig(
        vision_config=SIGLIP | {"model_type": "siglip_vision_model", "projection_dim": 64},
        text_config=TEXT | {"model_type": "gemma", "vocab_size": len(tokenizer)},
        image_token_id=tokenizer.image_token_id,
        projection_dim=64,
    )
    model = tiny_model(hf.PaliGemmaForConditionalGeneration, config)
    return Tiny(model, processor, tokenizer.image_token_id, "<image>")
