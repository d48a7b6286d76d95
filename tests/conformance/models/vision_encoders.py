"""Text decoders that cross-attend to an encoder of the picture alone, or to pictures by gated layers (IDEFICS)."""

from __future__ import annotations

from typing import Any

import torch
import transformers as hf
from torch import Tensor

from tests.conformance.geometry import decoder_arguments
from tests.conformance.tiny import TEXT, Tiny, byte_tokenizer, case, tiny_model
from vea_sdk import adapters

SIDE, PATCH = 64, 8  # 8 x 8 patches
VIT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": SIDE,
    "patch_size": PATCH,
}
BERT = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
SQUARE = {"height": SIDE, "width": SIDE}


def every_state(inputs: Any) -> Tensor:
    """The class token and the patches of one picture per prompt."""
    return torch.arange(1 + (SIDE // PATCH) ** 2).expand(len(inputs["pixel_values"]), -1)


def encoder_states(model: Any, inputs: Any) -> Tensor:
    return decoder_arguments(model, inputs)["encoder_hidden_states"]


def pictures_and_start(tiny: Tiny, pictures: Any, texts: Any) -> Any:
    """These decoders begin with the text that they shall go on with."""
    pixels = tiny.processor.image_processor([one for row in pictures for one in row], return_tensors="pt")
    text = tiny.processor.tokenizer(list(texts), padding=True, padding_side="left", return_tensors="pt")
    return {**pixels, "decoder_input_ids": text["input_ids"], "decoder_attention_mask": text["attention_mask"]}


@case("vision-encoder-decoder")
def vision_encoder_decoder() -> Tiny:
    tokenizer = byte_tokenizer()
    processor = hf.TrOCRProcessor(hf.ViTImageProcessorPil(size=SQUARE), tokenizer)
    config = hf.VisionEncoderDecoderConfig.from_encoder_decoder_configs(
        hf.ViTConfig(**VIT, add_pooling_layer=False), hf.BertConfig(**BERT, vocab_size=len(tokenizer))
    )
    config.decoder_start_token_id, config.pad_token_id = 1, 0
    return Tiny(
        tiny_model(hf.VisionEncoderDecoderModel, config),
        processor,
        several=False,
        cross=True,
        image_keys=every_state,
        image_tokens=encoder_states,
        make_inputs=pictures_and_start,
    )


@case("pix2struct")
def pix2struct() -> Tiny:
    tokenizer = byte_tokenizer()
    # Its normalisation subtracts the mean of the whole picture, so that any region would move every token.
    image_processor = hf.Pix2StructImageProcessorPil(
        patch_size={"height": PATCH, "width": PATCH}, max_patches=100, do_normalize=False
    )
    processor = hf.Pix2StructProcessor(image_processor, tokenizer)
    processor.images_kwargs = {"max_patches": 100}
    config = hf.Pix2StructConfig(
        vision_config={
            "hidden_size": 64,
            "patch_embed_hidden_size": 3 * PATCH**2,
            "d_ff": 96,
            "d_kv": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "seq_len": 100,
        },
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 64,
            "d_kv": 16,
            "d_ff": 96,
            "num_layers": 3,
            "num_heads": 4,
            "eos_token_id": 2,
            "use_cache": True,
        },
    )

    def inputs(tiny: Tiny, pictures: Any, texts: Any) -> Any:
        rows = [one for row in pictures for one in row]
        return tiny.processor(images=rows, text=list(texts), padding=True, padding_side="left", return_tensors="pt")

    return Tiny(
        tiny_model(hf.Pix2StructForConditionalGeneration, config),
        processor,
        several=False,
        cross=True,
        image_keys=lambda inputs: torch.nn.utils.rnn.pad_sequence(
            [row.nonzero().flatten() for row in inputs["attention_mask"]], batch_first=True, padding_value=-1
        ),
        image_tokens=patch_states,
        make_inputs=inputs,
        weights_at=2,
    )


def patch_states(model: Any, inputs: Any) -> Tensor:
    """Pictures of one size: the same patches are in use in every row."""
    used = int(inputs["attention_mask"][0].sum())
    return encoder_states(model, inputs)[:, :used]


@case("idefics")
def idefics() -> Tiny:
    tokenizer = byte_tokenizer(image_token="<image>", fake_token="<fake_token_around_image>")
    processor = hf.IdeficsProcessor(hf.IdeficsImageProcessorPil(image_size=SIDE), tokenizer)
    config = hf.IdeficsConfig(
        **{key: value for key, value in TEXT.items() if key not in ("num_key_value_heads", "head_dim")},
        vocab_size=len(tokenizer),
        vision_config={"embed_dim": 32} | {key: value for key, value in VIT.items() if key != "hidden_size"},
        cross_layer_interval=2,
    )
    model = tiny_model(hf.IdeficsForVisionText2Text, config)
    return Tiny(
        model,
        processor,
        layers=(0, 2),
        cross=True,
        image_keys=idefics_keys,
        image_tokens=idefics_states,
    )


def idefics_keys(inputs: Any) -> Tensor:
    pictures = [int(row.any(dim=0).sum()) for row in inputs["image_attention_mask"]]
    rows = [torch.arange(count * (1 + (SIDE // PATCH) ** 2)) for count in pictures]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1)


def idefics_states(model: Any, inputs: Any) -> Tensor:
    layer = next(iter(adapters.find(model).attention_modules().values()))
    return decoder_arguments(model, inputs, layer)["key_value_states"]


@case("blip")
def blip() -> Tiny:
    tokenizer = byte_tokenizer()
    processor = hf.BlipProcessor(hf.BlipImageProcessorPil(size=SQUARE), tokenizer)
    config = hf.BlipConfig(
        vision_config=VIT,
        text_config=BERT | {"vocab_size": len(tokenizer), "encoder_hidden_size": 32, "sep_token_id": 2},
        projection_dim=32,
    )
    config.text_config.encoder_hidden_size = 32  # the configuration sets a larger one of its own
    return Tiny(
        tiny_model(hf.BlipForConditionalGeneration, config),
        processor,
        several=False,
        cross=True,
        image_keys=every_state,
        image_tokens=encoder_states,
        make_inputs=one_picture,
    )


@case("git")
def git() -> Tiny:
    tokenizer = byte_tokenizer()
    tokenizer.cls_token = "<s>"
    size = {"shortest_edge": SIDE}
    processor = hf.GitProcessor(hf.CLIPImageProcessorPil(size=size, crop_size=SQUARE), tokenizer)
    config = hf.GitConfig(vision_config=VIT, vocab_size=len(tokenizer), **BERT)
    return Tiny(
        tiny_model(hf.GitForCausalLM, config),
        processor,
        several=False,
        cross=True,
        image_keys=every_state,
        image_tokens=lambda model, inputs: decoder_arguments(model, inputs)["hidden_states"][
            :, : every_state(inputs).shape[1]
        ],
        make_inputs=one_picture,
    )


def one_picture(tiny: Tiny, pictures: Any, texts: Any) -> Any:
    rows = [one for row in pictures for one in row]
    inputs = tiny.processor(images=rows, text=list(texts), padding=True, padding_side="left", return_tensors="pt")
    inputs.pop("token_type_ids", None)
    return inputs


@case("pp_formulanet")
def pp_formulanet() -> Tiny:
    tokenizer = byte_tokenizer()
    image_processor = hf.PPFormulaNetImageProcessor(size={"height": 64, "width": 64})
    processor = hf.PPFormulaNetProcessor(image_processor, tokenizer)
    config = hf.PPFormulaNetConfig(
        vision_config={
            "hidden_size": 32,
            "output_channels": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 64,
            "patch_size": 4,
            "window_size": 4,
            "global_attn_indexes": [1],
            "mlp_dim": 48,
            "post_conv_in_channels": 16,
            "post_conv_mid_channels": 32,
            "post_conv_out_channels": 32,
            "decoder_hidden_size": 64,
        },
        text_config={
            "vocab_size": len(tokenizer),
            "d_model": 64,
            "encoder_layers": 3,
            "decoder_layers": 3,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "decoder_ffn_dim": 96,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 0,
            "forced_eos_token_id": None,
        },
    )
    return Tiny(
        tiny_model(hf.PPFormulaNetForConditionalGeneration, config),
        processor,
        several=False,
        cross=True,
        image_keys=lambda inputs: torch.arange(16).expand(len(inputs["pixel_values"]), -1),
        make_inputs=pictures_and_start,
        no_grid="none: margins are cut off by content",
    )
