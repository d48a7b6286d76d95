"""Chameleon, Emu3 and Apertus 1.5: the picture becomes codes of a VQ-VAE, which the decoder embeds like words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import transformers as hf
from torch import Tensor, nn

from tests.conformance.geometry import decoder_arguments
from tests.conformance.tiny import TEXT, Tiny, byte_tokenizer, case, tiny_model, without

SIDE = 64  # strides of 4 leave 16 x 16 codes
N_CODES = 64
# Each halving pads one pixel at the right and the bottom only, so a token's window lies 3/8 of it down and right.
LARGEST_BIAS = 0.6


def local(encoder: nn.Module) -> None:
    """Random convolutions, many of them at the resolution of the codes, look far around and to one side. Here kernels
    are symmetric and residual branches weak, so that a code tells of its own place."""
    for module in encoder.modules():
        if isinstance(module, (nn.Conv2d, nn.Conv3d)):
            weight = module.weight.data
            weight.add_(weight.flip(-1))
            weight.add_(weight.flip(-2)).div_(2)
        if hasattr(module, "conv2"):
            for parameter in module.conv2.parameters():
                parameter.data.mul_(0.1)


@contextmanager
def without_wide_views(model: nn.Module) -> Iterator[None]:
    """The statistics of group norms and attention between codes span the whole picture, so that every change would
    move every token."""
    wide = [one for one in model.modules() if isinstance(one, nn.GroupNorm) or type(one).__name__.endswith("AttnBlock")]
    handles = [module.register_forward_hook(lambda module, args, output: args[0]) for module in wide]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def before_codes(model: Any, inputs: Any) -> Tensor:
    """What the codes are chosen from, [pictures, rows, cols, hidden]: codes jump, their input moves smoothly."""
    with without_wide_views(model):
        features = decoder_arguments(model, inputs, model.model.vqmodel.quantize)["hidden_state"]
    features = features.squeeze(1) if features.dim() == 5 else features  # Emu3's has a time axis of one
    return features.permute(0, 2, 3, 1)


def chameleon_tokens(model: Any, inputs: Any) -> Tensor:
    return before_codes(model, inputs).flatten(1, 2).unflatten(0, (len(inputs["input_ids"]), -1)).flatten(1, 2)


def emu3_tokens(model: Any, inputs: Any) -> Tensor:
    """Without the padding of a batch, and with an end-of-line token, which no pixel moves, behind each row."""
    stride = model.model.vqmodel.vision_spatial_factor
    pictures = [
        nn.functional.pad(features[: height // stride, : width // stride], (0, 0, 0, 1)).flatten(0, 1)
        for features, (height, width) in zip(before_codes(model, inputs), inputs["image_sizes"].tolist(), strict=True)
    ]
    return torch.cat(pictures).unflatten(0, (len(inputs["input_ids"]), -1))


def apertus_tokens(model: Any, inputs: Any) -> Tensor:
    """The codes of each picture are chosen by themselves."""
    pictures: list[Tensor] = []
    quantizer = model.model.vision_tokenizer.quantize
    handle = quantizer.register_forward_pre_hook(lambda module, args: pictures.append(args[0].flatten(2)[0].mT))
    with handle, without_wide_views(model):
        model.get_image_features(inputs["pixel_values"], inputs["image_sizes"])
    return torch.cat(pictures).unflatten(0, (len(inputs["input_ids"]), -1))


@case("chameleon")
def chameleon() -> Tiny:
    """Its codes are words "IMGIMG" + digits as letters + "Z"."""
    letters = str.maketrans("0123456789", "ABCDEFGHIJ")
    codes = {f"code_{i}": f"IMGIMG{str(i).translate(letters)}Z" for i in range(N_CODES)}
    tokenizer = byte_tokenizer(image_token="<image>", boi_token="<racm3:break>", eoi_token="<eoss>", **codes)
    tokenizer.sep_token = "</s>"
    image_processor = hf.ChameleonImageProcessorPil(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}
    )
    processor = hf.ChameleonProcessor(image_processor, tokenizer, image_seq_length=(SIDE // 4) ** 2)
    config = hf.ChameleonConfig(
        **{key: value for key, value in TEXT.items() if key != "head_dim"},
        vocab_size=len(tokenizer),
        vocabulary_map=tokenizer.get_vocab(),
        vq_config={
            "embed_dim": 16,
            "num_embeddings": N_CODES,
            "latent_channels": 16,
            "resolution": SIDE,
            "base_channels": 32,
            "channel_multiplier": [1, 1, 1],
            "num_res_blocks": 1,
            "attn_type": "none",
        },
    )
    model = tiny_model(hf.ChameleonForConditionalGeneration, config)
    local(model.model.vqmodel.encoder)
    for layer in model.model.layers:  # a scale per head: two axes, so tiny_model takes it for a matrix
        nn.init.ones_(layer.self_attn.q_norm.weight)
        nn.init.ones_(layer.self_attn.k_norm.weight)
    return Tiny(
        model,
        processor,
        tokenizer.image_token_id,
        "<image>",
        image_tokens=chameleon_tokens,
        largest_bias=LARGEST_BIAS,
    )


@case("emu3")
def emu3() -> Tiny:
    codes = {f"code_{i}": f"<|visual token {i:06d}|>" for i in range(N_CODES)}
    tokenizer = byte_tokenizer(
        image_token="<image>",
        boi_token="<|image start|>",
        eoi_token="<|image end|>",
        image_wrapper_token="<|image token|>",
        eof_token="<|extra_201|>",
        end_of_line="<|extra_200|>",
        **codes,
    )
    image_processor = hf.Emu3ImageProcessor(min_pixels=64**2, max_pixels=96**2)
    processor = hf.Emu3Processor(image_processor, tokenizer)
    config = hf.Emu3Config(
        text_config={key: value for key, value in TEXT.items() if key != "head_dim"} | {"vocab_size": len(tokenizer)},
        vocabulary_map=tokenizer.get_vocab(),
        vq_config={
            "codebook_size": N_CODES,
            "embed_dim": 4,
            "latent_channels": 4,
            "temporal_downsample_factor": 1,  # a still picture is repeated so many times
            "base_channels": 32,
            "channel_multiplier": [1, 1, 1, 1],
            "num_res_blocks": 1,
            "attn_resolutions": [3],
            "hidden_size": 32,
        },
    )
    model = tiny_model(hf.Emu3ForConditionalGeneration, config)
    local(model.model.vqmodel.encoder)
    return Tiny(
        model,
        processor,
        tokenizer.image_token_id,
        "<image>",
        image_tokens=emu3_tokens,
        largest_bias=LARGEST_BIAS,
    )


@case("apertus1p5")
def apertus1p5() -> Tiny:
    names = {"boi": "<|img_start|>", "eoi": "<|img_end|>", "image_wrapper": "<|img_token_start|>", "eol": "<|img_eol|>"}
    names |= {"image": "<|image|>", "audio": "<|audio|>", "boa": "<|audio_start|>", "eoa": "<|audio_end|>"}
    tokenizer = byte_tokenizer(**{f"{name}_token": token for name, token in names.items()})
    image_processor = hf.Apertus1p5ImageProcessor(size={"min_pixels": 48**2, "max_pixels": 96**2}, spatial_factor=8)
    processor = without(hf.Apertus1p5Processor, "feature_extractor")(image_processor, None, tokenizer)
    words = len(tokenizer)  # the codes' own ids follow
    config = hf.Apertus1p5Config(
        text_config={key: value for key, value in TEXT.items() if key != "head_dim"}
        | {"vocab_size": words + 2 * N_CODES},
        vision_config={
            "codebook_size": N_CODES,
            "embed_dim": 16,
            "latent_channels": 16,
            "base_channels": 32,
            "channel_multiplier": [1, 1, 1, 1],
            "num_res_blocks": 1,
            "attn_resolutions": [],
        },
        audio_config={
            "num_filters": 2,
            "upsampling_ratios": [2, 2],
            "num_lstm_layers": 1,
            "hidden_size": 8,
            "codebook_size": N_CODES,
            "codebook_dim": 8,
        },
        image_token_id=tokenizer.image_token_id,
        audio_token_id=tokenizer.audio_token_id,
        image_token_offset=words,
        audio_token_offset=words + N_CODES,
    )
    model = tiny_model(hf.Apertus1p5ForConditionalGeneration, config)
    local(model.model.vision_tokenizer.encoder)
    return Tiny(
        model,
        processor,
        tokenizer.image_token_id,
        "<|image|>",
        image_tokens=apertus_tokens,
        largest_bias=LARGEST_BIAS,
    )
