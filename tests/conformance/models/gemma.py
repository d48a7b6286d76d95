"""PaliGemma (prefix-LM over image and prompt), Gemma 3 (sliding layers) and ShieldGemma 2, which judges a picture by
policies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import transformers as hf
from PIL import Image

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


@case("shieldgemma2")
def shieldgemma2() -> Tiny:
    gemma = families.gemma3()
    tokenizer = gemma.processor.tokenizer
    processor = hf.ShieldGemma2Processor(
        gemma.processor.image_processor,
        tokenizer,
        image_seq_length=64,
        chat_template=families.chat_template("<start_of_image>"),
        policy_definitions={},
    )
    config = hf.ShieldGemma2Config(
        vision_config=SIGLIP | {"model_type": "siglip_vision_model", "patch_size": 4},
        text_config=TEXT
        | {
            "model_type": "gemma3_text",
            "vocab_size": len(tokenizer),
            "sliding_window": 48,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
        },
        mm_tokens_per_image=64,
        image_token_index=tokenizer.image_token_id,
        boi_token_index=tokenizer.boi_token_id,
        eoi_token_index=tokenizer.eoi_token_id,
    )
    model = tiny_model(hf.Gemma3ForConditionalGeneration, config)
    return Tiny(model, processor, tokenizer.image_token_id, several=False, make_inputs=policies)


def policies(tiny: Tiny, pictures: Sequence[Sequence[Image.Image]], texts: Sequence[str]) -> Any:
    """The processor makes a prompt of every picture with every policy: the texts are the policies."""
    named = {text: text for text in texts}
    return tiny.processor(
        images=[list(row) for row in pictures], custom_policies=named, policies=list(named), return_tensors="pt"
    )
