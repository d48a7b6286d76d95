"""Ovis2: the whole picture, then tiles; image tokens are mixtures of a visual vocabulary."""

from __future__ import annotations

import transformers as hf

from tests.conformance.tiny import TEXT, Tiny, byte_tokenizer, case, tiny_model


@case("ovis2")
def ovis2() -> Tiny:
    side, patch, stride = 48, 4, 2  # 6 x 6 tokens per tile
    names = {f"{name.lower()}_token": f"<IMG_{name}>" for name in ("START", "GRID", "COL", "ROW", "END")}
    tokenizer = byte_tokenizer(image_token="<image>", atom_token="<IMG_ATOM>", **names)
    image_processor = hf.Ovis2ImageProcessorPil(
        size={"height": side, "width": side}, crop_to_patches=True, max_patches=6
    )
    processor = hf.Ovis2Processor(image_processor, tokenizer, image_seq_length=36)
    text = {key: value for key, value in TEXT.items() if key != "head_dim"}
    config = hf.Ovis2Config(
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": side,
            "patch_size": patch,
            "hidden_stride": stride,
            "vocab_size": 64,
        },
        text_config=text | {"model_type": "qwen2", "vocab_size": len(tokenizer)},
        image_token_id=tokenizer.atom_token_id,
        visual_indicator_token_ids=[tokenizer.convert_tokens_to_ids(token) for token in names.values()],
        vocab_size=len(tokenizer),
        hidden_size=64,
    )
    return Tiny(
        tiny_model(hf.Ovis2ForConditionalGeneration, config),
        processor,
        tokenizer.atom_token_id,
        "<image>",
        options=({"crop_to_patches": False}, {"use_covering_area_grid": False}),
    )
