"""HunYuan-VL and Hy4: line ends among the placeholders; HunYuan-VL has a begin and an end token there, too."""

from __future__ import annotations

from typing import Any

import transformers as hf

from tests.conformance.models.qwen_vl import MARK, qwen_tokenizer
from tests.conformance.models.sparse import INDEXER, LATENT, MIXTURE
from tests.conformance.tiny import TEXT, Tiny, byte_tokenizer, case, tiny_model, without

SIZE = {"shortest_edge": 48**2, "longest_edge": 96**2}
VISION: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "patch_size": 4,
    "out_hidden_size": 64,
    "max_image_size": 96,
}


@case("hunyuan_vl")
def hunyuan_vl() -> Tiny:
    tokenizer = byte_tokenizer(image_token="<|img|>", image_start_token="<|img_start|>", image_end_token="<|img_end|>")
    image_processor = hf.HunYuanVLImageProcessorPil(patch_size=4, merge_size=2, size=SIZE)
    processor = hf.HunYuanVLProcessor(image_processor, tokenizer)
    config = hf.HunYuanVLConfig(
        vision_config=VISION,
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


@case("hy_v4_vl")
def hy_v4_vl() -> Tiny:
    """Latent attention with sinks over keys that an indexer picks, eager in Transformers. Layers 2 and 3 use the keys
    that layer 1 picked."""
    tokenizer = qwen_tokenizer()
    image_processor = hf.HYV4VLImageProcessorPil(patch_size=4, merge_size=2, size=SIZE)
    processor = without(hf.HYV4VLProcessor)(image_processor, tokenizer)
    config = hf.HYV4VLConfig(
        vision_config=VISION,
        text_config=TEXT
        | LATENT
        | INDEXER
        | MIXTURE
        | {
            "vocab_size": len(tokenizer),
            "hc_mult": 2,
            "learnable_sink_init": 1.0,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]},
        },
        image_token_id=tokenizer.image_token_id,
        video_token_id=tokenizer.video_token_id,
    )
    model = tiny_model(hf.HYV4VLForConditionalGeneration, config)
    return Tiny(model, processor, tokenizer.image_token_id, MARK)
