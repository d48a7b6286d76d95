"""Idefics3 and SmolVLM: tiles with row and column tokens, the whole picture last."""

from __future__ import annotations

from typing import Any

import transformers as hf

from tests.conformance.tiny import TEXT, Tiny, byte_tokenizer, case, tiny_model


def idefics3_parts(image_processor: Any, processor_class: Any) -> Any:
    tiles = {f"tile_{r}_{c}": f"<row_{r}_col_{c}>" for r in range(1, 7) for c in range(1, 7)}
    tokenizer = byte_tokenizer(
        image_token="<image>", fake_image_token="<fake_token_around_image>", global_image_token="<global-img>", **tiles
    )
    return processor_class(image_processor, tokenizer, image_seq_len=36)


@case("idefics3")
def idefics3() -> Tiny:
    image_processor = hf.Idefics3ImageProcessorPil(size={"longest_edge": 144}, max_image_size={"longest_edge": 48})
    processor = idefics3_parts(image_processor, hf.Idefics3Processor)
    config = hf.Idefics3Config(
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 48,
            "patch_size": 4,
        },
        text_config=TEXT | {"model_type": "llama", "vocab_size": len(processor.tokenizer)},
        scale_factor=2,
        image_token_id=processor.image_token_id,
    )
    return Tiny(tiny_model(hf.Idefics3ForConditionalGeneration, config), processor, processor.image_token_id, "<image>")
