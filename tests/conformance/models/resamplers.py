"""Image tokens that are learned queries (Q-Formers, perceivers): scores are captured, places are refused."""

from __future__ import annotations

from typing import Any

import torch
import transformers as hf
from torch import Tensor

from tests.conformance.tiny import TEXT, Tiny, byte_tokenizer, case, tiny_model

NO_GRID = "none: resampled"
SIDE, PATCH = 32, 8
VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": SIDE,
    "patch_size": PATCH,
}
OPT = {
    "model_type": "opt",
    "hidden_size": 64,
    "word_embed_proj_dim": 64,
    "ffn_dim": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
QFORMER = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
SQUARE = {"height": SIDE, "width": SIDE}
QUERIES = 16


def flat_inputs(tiny: Tiny, pictures: Any, texts: Any) -> Any:
    """One picture per prompt, in one list; the processor puts its tokens before the text."""
    rows = [one for row in pictures for one in row]
    return tiny.processor(images=rows, text=list(texts), padding=True, padding_side="left", return_tensors="pt")


@case("blip-2")
def blip2() -> Tiny:
    tokenizer = byte_tokenizer()
    processor = hf.Blip2Processor(hf.BlipImageProcessorPil(size=SQUARE), tokenizer, num_query_tokens=QUERIES)
    config = hf.Blip2Config(
        vision_config=VISION,
        qformer_config=QFORMER,
        text_config=OPT | {"vocab_size": len(tokenizer)},
        num_query_tokens=QUERIES,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    return Tiny(
        tiny_model(hf.Blip2ForConditionalGeneration, config),
        processor,
        config.image_token_index,
        several=False,
        make_inputs=flat_inputs,
        no_grid=NO_GRID,
    )


@case("instructblip")
def instructblip() -> Tiny:
    tokenizer = byte_tokenizer()
    processor = hf.InstructBlipProcessor(
        hf.BlipImageProcessorPil(size=SQUARE), tokenizer, byte_tokenizer(), num_query_tokens=QUERIES
    )
    config = hf.InstructBlipConfig(
        vision_config=VISION,
        qformer_config=QFORMER | {"vocab_size": len(tokenizer)},
        text_config=OPT | {"vocab_size": len(tokenizer)},
        num_query_tokens=QUERIES,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    return Tiny(
        tiny_model(hf.InstructBlipForConditionalGeneration, config),
        processor,
        config.image_token_index,
        several=False,
        make_inputs=flat_inputs,
        no_grid=NO_GRID,
    )


@case("instructblipvideo")
def instructblipvideo() -> Tiny:
    tokenizer = byte_tokenizer()
    video_processor = hf.InstructBlipVideoVideoProcessor(size=SQUARE)
    processor = hf.InstructBlipVideoProcessor(video_processor, tokenizer, byte_tokenizer(), num_query_tokens=QUERIES)
    config = hf.InstructBlipVideoConfig(
        vision_config=VISION,
        qformer_config=QFORMER | {"vocab_size": len(tokenizer)},
        text_config=OPT | {"vocab_size": len(tokenizer)},
        num_query_tokens=QUERIES,
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
    )

    def inputs(tiny: Tiny, pictures: Any, texts: Any) -> Any:
        videos = [[one] * 4 for row in pictures for one in row]  # four frames of one picture
        return tiny.processor(images=videos, text=list(texts), padding=True, padding_side="left", return_tensors="pt")

    return Tiny(
        tiny_model(hf.InstructBlipVideoForConditionalGeneration, config),
        processor,
        config.video_token_index,
        several=False,
        make_inputs=inputs,
        no_grid=NO_GRID,
    )


def masked_keys(inputs: Any) -> Tensor:
    rows = [(row == 1).nonzero().flatten() for row in inputs["image_embeds_position_mask"]]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1)


KOSMOS_TEXT = {
    "embed_dim": 64,
    "ffn_dim": 96,
    "layers": 3,
    "attention_heads": 4,
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


@case("kosmos-2")
def kosmos2() -> Tiny:
    tokenizer = byte_tokenizer()
    tokenizer.padding_side = "left"  # this processor pads by itself, on the tokenizer's side
    image_processor = hf.CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=SQUARE)
    processor = hf.Kosmos2Processor(image_processor, tokenizer, 16)
    processor.num_image_tokens = QUERIES
    config = hf.Kosmos2Config(
        vision_config=VISION,
        text_config=KOSMOS_TEXT | {"vocab_size": len(tokenizer)},
        latent_query_num=QUERIES,
    )
    return Tiny(
        tiny_model(hf.Kosmos2ForConditionalGeneration, config),
        processor,
        several=False,
        image_keys=masked_keys,
        make_inputs=flat_inputs,
        no_grid=NO_GRID,
    )


@case("kosmos-2.5")
def kosmos25() -> Tiny:
    tokenizer = byte_tokenizer(boi_token="<image>", eoi_token="</image>", image_token="<patch>")
    image_processor = hf.Kosmos2_5ImageProcessorPil(patch_size={"height": PATCH, "width": PATCH}, max_patches=40)
    processor = hf.Kosmos2_5Processor(image_processor, tokenizer, num_image_tokens=QUERIES)
    processor.images_kwargs = processor.images_kwargs | {"max_patches": 40}
    config = hf.Kosmos2_5Config(
        vision_config={
            "hidden_size": 32,
            "patch_embed_hidden_size": 3 * PATCH**2,
            "intermediate_size": 48,
            "head_dim": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "max_num_patches": 40,
        },
        text_config=KOSMOS_TEXT | {"vocab_size": len(tokenizer)},
        latent_query_num=QUERIES,
    )
    return Tiny(
        tiny_model(hf.Kosmos2_5ForConditionalGeneration, config),
        processor,
        several=False,
        padded=False,  # the processor's mask of image places counts from the left edge and does not see padding there
        image_keys=masked_keys,
        make_inputs=flat_inputs,
        no_grid=NO_GRID,
    )


@case("idefics2")
def idefics2() -> Tiny:
    tokenizer = byte_tokenizer(image_token="<image>", image_boundary_token="<fake_token_around_image>")
    image_processor = hf.Idefics2ImageProcessorPil(size={"shortest_edge": 16, "longest_edge": SIDE})
    processor = hf.Idefics2Processor(image_processor, tokenizer, image_seq_len=QUERIES)
    config = hf.Idefics2Config(
        vision_config=VISION,
        perceiver_config={
            "hidden_size": 64,
            "resampler_n_latents": QUERIES,
            "resampler_depth": 1,
            "resampler_n_heads": 4,
            "resampler_head_dim": 16,
            "num_key_value_heads": 2,
        },
        text_config=TEXT | {"model_type": "mistral", "vocab_size": len(tokenizer), "sliding_window": 16},
        image_token_id=tokenizer.image_token_id,
    )
    model = tiny_model(hf.Idefics2ForConditionalGeneration, config)
    return Tiny(model, processor, tokenizer.image_token_id, "<image>", no_grid=NO_GRID)


@case("aria")
def aria() -> Tiny:
    tokenizer = byte_tokenizer(image_token="<image>")
    side, patch = 490, 70  # the smallest that its image processor takes: 7 x 7 patches
    processor = hf.AriaProcessor(
        hf.AriaImageProcessorPil(max_image_size=side), tokenizer, size_conversion={side: QUERIES}
    )
    processor.images_kwargs = processor.images_kwargs | {"max_image_size": side}
    config = hf.AriaConfig(
        vision_config=VISION | {"model_type": "idefics3_vision", "image_size": side, "patch_size": patch},
        text_config=TEXT
        | {
            "vocab_size": len(tokenizer),
            "intermediate_size": 32,
            "moe_num_experts": 4,
            "moe_topk": 2,
            "moe_num_shared_experts": 1,
        },
        projector_patch_to_query_dict={(side // patch) ** 2: QUERIES},
        image_token_index=tokenizer.image_token_id,
    )
    model = tiny_model(hf.AriaForConditionalGeneration, config)
    return Tiny(model, processor, tokenizer.image_token_id, "<image>", no_grid=NO_GRID)


@case("deepseek_ocr2")
def deepseek_ocr2() -> Tiny:
    tokenizer = byte_tokenizer(image_token="<image>")
    # Its numbers of queries are fixed: 144 for a tile, 256 for the whole picture.
    tile, whole, patch = 192, 256, 4
    processor = hf.DeepseekOcr2Processor(
        hf.DeepseekOcr2ImageProcessorPil(size={"height": whole, "width": whole}, tile_size=tile),
        tokenizer,
        patch_size=patch,
        downsample_ratio=4,
    )
    config = hf.DeepseekOcr2Config(
        vision_config={
            "sam_config": {
                "hidden_size": 32,
                "output_channels": 16,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "image_size": whole,
                "patch_size": patch,
                "window_size": 4,
                "global_attn_indexes": [],
                "downsample_channels": [32, 32],
            },
            "encoder_config": {
                "vocab_size": 8,
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "num_key_value_heads": 2,
            },
        },
        text_config={key: value for key, value in TEXT.items() if key != "head_dim"}
        | {
            "vocab_size": len(tokenizer),
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "n_shared_experts": 1,
            "moe_intermediate_size": 32,
            "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"],
        },
        image_token_id=tokenizer.image_token_id,
    )
    model = tiny_model(hf.DeepseekOcr2ForConditionalGeneration, config)
    return Tiny(model, processor, tokenizer.image_token_id, "<image>", no_grid=NO_GRID)
