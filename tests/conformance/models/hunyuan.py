"""HunYuan-VL: line ends, a begin and an end token among the placeholders."""

from __future__ import annotations

import transformers as hf

from tests.conformance.tiny import TEXT, Tiny, byte_tokenizer, case, tiny_model


@case("hunyuan_vl")
def hunyuan_vl() -> Tiny:
    tokenizer = byte_tokenizer(image_token="<|img|>", image_start_token="<|img_start|>", image_end_token="<|img_end|>")
    image_processor = hf.HunYuanVLImageProcessorPil(
        patch_size=4, merge_size=2, size={"shortest_edge": 48**2, "longest_edge": 96**2}
    )
    processor = hf.HunYuanVLProcessor(image_processor, tokenizer)
    config = hf.HunYuanVLConfig(
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "patch_size": 4,
            "out_hidden_size": 64,
            "max_image_size": 96,
        },
        text_config=TEXT
        | {
            "vocab_size": len(tokenizer),
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 2, 2, 2]},
        },
        image_token_id=tokenizer.image_token_id,
        im_start_id=tokenizer.image_start_token_id,
        im_end_id=tokenizer.image_end_token_id,
        im_newline_id=tokenizer.image_token_id,
    )
    model = tiny_model(hf.HunYuanVLForConditionalGeneration, config)
    return Tiny(model, processor, tokenizer.image_token_id, "<|img_start|><|img|><|img_end|>")
