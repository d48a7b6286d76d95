"""Step-3.7: windows of the picture and the whole; sliding layers with their own number of heads, gated heads."""

from __future__ import annotations

import transformers as hf

from tests.conformance.tiny import SIZES, TEXT, Tiny, byte_tokenizer, case, tiny_model


@case("step3p7")
def step3p7() -> Tiny:
    side, window, patch = 64, 48, 2  # two strided convolutions: 8 x 8 tokens of the whole, 6 x 6 of a window
    marks = ("patch_start", "patch_end", "patch_newline", "im_start", "im_end")
    tokenizer = byte_tokenizer(image_token="<im_patch>", **{f"{name}_token": f"<{name}>" for name in marks})
    image_processor = hf.Step3p7ImageProcessor(size={"height": side, "width": side}, patch_size=window)
    image_processor.vision_patch_size = patch
    processor = hf.Step3p7Processor(image_processor, tokenizer)
    config = hf.Step3p7Config(
        vision_config={
            "hidden_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "mlp_ratio": 2.0,
            "image_size": side,
            "patch_size": patch,
            "max_position_embeddings": (side // patch) ** 2,
        },
        text_config=TEXT
        | {
            "vocab_size": len(tokenizer),
            "layer_types": ["full_attention", "sliding_attention"] * 2,
            "sliding_window": 48,
            "num_sliding_attention_heads": 8,
            "mlp_layer_types": ["dense", "sparse"] * 2,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
            "share_expert_dim": 32,
        },
        image_token_id=tokenizer.image_token_id,
    )
    model = tiny_model(hf.Step3p7ForConditionalGeneration, config)
    return Tiny(
        model,
        processor,
        tokenizer.image_token_id,
        "<im_patch>",
        sizes=(*SIZES, (58, 62), (30, 130)),  # without windows, padded to a square
        # Two padded 3 x 3 convolutions of stride 2 look 3/8 of a token up and left of their cell, and random kernels
        # do not weigh their window evenly.
        largest_bias=0.6,
    )
