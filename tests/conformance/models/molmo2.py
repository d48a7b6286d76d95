"""Molmo2: the whole picture, then a raster from overlapping crops, 2 x 2 patches pooled by attention."""

from __future__ import annotations

import transformers as hf

from tests.conformance.tiny import TEXT, Tiny, byte_tokenizer, case, tiny_model, without

OPTIONS = ({"overlap_margins": [0, 0]}, {"overlap_margins": [4, 4]}, {"pooling_size": [3, 3]})


@case("molmo2")
def molmo2() -> Tiny:
    side, patch = 52, 4  # 13 x 13 patches: an odd number, so that the last windows reach beyond the picture
    marks = ("im_patch", "im_col", "im_start", "low_res_im_start", "frame_start", "im_end", "frame_end", "im_low")
    tokenizer = byte_tokenizer(
        image_token="<|image|>", video_token="<|video|>", **{name: f"<{name}>" for name in marks}
    )
    ids = {name: tokenizer.convert_tokens_to_ids(f"<{name}>") for name in marks}
    image_processor = hf.Molmo2ImageProcessor(
        size={"height": side, "width": side}, patch_size=patch, max_crops=6, overlap_margins=[2, 1]
    )
    processor = without(hf.Molmo2Processor)(image_processor=image_processor, tokenizer=tokenizer)
    config = hf.Molmo2Config(
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "image_size": [side, side],
            "patch_size": patch,
        },
        adapter_config={
            "vision_feature_layer": [1, 0],
            "hidden_size": 32,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "intermediate_size": 48,
            "text_hidden_size": 64,
        },
        text_config={key: value for key, value in TEXT.items() if not key.endswith("_token_id")}
        | {"vocab_size": len(tokenizer), "additional_vocab_size": 0},
        image_start_token_id=ids["im_start"],
        low_res_image_start_token_id=ids["low_res_im_start"],
        image_end_token_id=ids["im_end"],
        image_patch_id=ids["im_patch"],
        frame_start_token_id=ids["frame_start"],
        frame_end_token_id=ids["frame_end"],
    )
    model = tiny_model(hf.Molmo2ForConditionalGeneration, config)
    return Tiny(model, processor, ids["im_patch"], "<|image|>", quiet="image_pooling_2d", options=OPTIONS)
