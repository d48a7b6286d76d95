"""InternVL and Qianfan-OCR: one run of tiles and a thumbnail."""

from __future__ import annotations

import transformers as hf

from tests import families
from tests.conformance.tiny import TEXT, Tiny, byte_tokenizer, case, tiny_model


@case("internvl")
def internvl() -> Tiny:
    tiny = families.internvl()
    return Tiny(tiny.model, tiny.processor, tiny.image_token_id, "<IMG_CONTEXT>\n")


@case("qianfan_ocr")
def qianfan_ocr() -> Tiny:
    side, patch, n_tokens = 48, 4, 36  # per tile: 12 x 12 patches, pixel-shuffled to 6 x 6 tokens
    tokenizer = byte_tokenizer(start_image_token="<img>", end_image_token="</img>", context_image_token="<IMG_CONTEXT>")
    image_processor = hf.GotOcr2ImageProcessorPil(size={"height": side, "width": side}, max_patches=6)
    processor = hf.QianfanOCRProcessor(image_processor, tokenizer, image_seq_length=n_tokens)
    config = hf.QianfanOCRConfig(
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": [side, side],
            "patch_size": [patch, patch],
            "drop_path_rate": 0.0,
        },
        text_config=TEXT | {"model_type": "qwen3", "vocab_size": len(tokenizer)},
        image_token_id=tokenizer.context_image_token_id,
        image_seq_length=n_tokens,
    )
    model = tiny_model(hf.QianfanOCRForConditionalGeneration, config)
    return Tiny(model, processor, tokenizer.context_image_token_id, "<image>")
