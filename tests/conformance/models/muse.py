"""Muse: patches cut in raster order and merged behind the tower; the processor writes the frame of a picture."""

from __future__ import annotations

from typing import Any

import transformers as hf

from tests.conformance.models.own_resolution import TOWER
from tests.conformance.models.qwen_relatives import SLIDING
from tests.conformance.tiny import TEXT, Tiny, byte_tokenizer, case, tiny_model, without

MUSE_TOKENS = {
    "image_token": "<|patch|>",
    "image_start_token": "<|image_start|>",
    "image_end_token": "<|image_end|>",
    "video_token": "<|video|>",
    "video_sep_token": "<|vid_frame_separator|>",
    "video_start_token": "<|vid_start|>",
    "video_end_token": "<|vid_end|>",
}
MUSE_VISION = TOWER | {
    "pos_emb_height": 8,
    "pos_emb_width": 8,
    "max_position_embeddings": 64,
    "patch_temporal": 2,
    "merge_size": 2,
    "layer_types": ["window_attention", "full_attention"],
}


def muse_picture_processor() -> Any:
    return hf.MuseGlimmerImageProcessor(patch_size=4, merge_size=2, max_image_tokens=144)


@case("muse_glimmer")
def muse_glimmer() -> Tiny:
    """Three sliding layers, then a full one without rotary positions; the processor writes the picture's frame."""
    tokenizer = byte_tokenizer(**MUSE_TOKENS)
    processor = without(hf.MuseGlimmerProcessor)(muse_picture_processor(), tokenizer=tokenizer)
    config = hf.MuseGlimmerConfig(
        vision_config=MUSE_VISION,
        text_config=TEXT | SLIDING | {"vocab_size": len(tokenizer)},
        image_token_id=tokenizer.image_token_id,
        video_token_id=tokenizer.video_token_id,
        out_hidden_size=4 * 32,
        projector_hidden_size=64,
    )
    model = tiny_model(hf.MuseGlimmerForConditionalGeneration, config)
    return Tiny(model, processor, tokenizer.image_token_id, "<|patch|>")


@case("muse_spark")
def muse_spark() -> Tiny:
    tokenizer = byte_tokenizer(
        **MUSE_TOKENS,
        audio_token="<|audio|>",
        audio_start_token="<|soft_audio_start|>",
        audio_end_token="<|soft_audio_end|>",
    )
    leaner = without(hf.MuseSparkProcessor, "video_processor", "feature_extractor")
    processor = leaner(muse_picture_processor(), tokenizer=tokenizer)
    config = hf.MuseSparkConfig(
        vision_config=MUSE_VISION,
        text_config=TEXT
        | SLIDING
        | {
            "vocab_size": len(tokenizer),
            "moe_intermediate_size": 32,
            "moe_hidden_size": 32,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
        },
        audio_config={
            "patch_sizes": [4, 4],
            "hidden_sizes": [16, 32],
            "depths": [1, 1],
            "num_hidden_layers": 2,
            "out_hidden_size": 64,
        },
        image_token_id=tokenizer.image_token_id,
        video_token_id=tokenizer.video_token_id,
        audio_token_id=tokenizer.audio_token_id,
        out_hidden_size=4 * 32,
        projector_hidden_size=64,
    )
    model = tiny_model(hf.MuseSparkForConditionalGeneration, config)
    return Tiny(model, processor, tokenizer.image_token_id, "<|patch|>")
