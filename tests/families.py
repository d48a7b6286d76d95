"""Tiny random-weight models, one per lineage, each with its real processor built from configuration.

Nothing is downloaded and torchvision is not needed. The weights are random (seeded), the code that runs is
Transformers' own: configuration, image processor, tokenizer, chat template, vision tower, decoder.
Models are shared between callers: leave them as found (set_attn_implementation included).

    family = FAMILIES["llava"]()
    inputs = family.inputs(picture, "what is this?")                       # one prompt, one picture
    inputs = family.inputs([first, second], "compare")                     # one prompt, two pictures
    inputs = family.inputs([[first], [second]], ["short", "longer text"])  # two prompts, left-padded
    family.model.generate(**inputs, max_new_tokens=3)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import transformers as hf
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

Picture = Image.Image

# Standard deviation of the random weights: large enough that attention rows are far from uniform, so that a
# comparison of two attention rows can fail.
WEIGHT_STD = 0.15

# Decoder shape shared by all families: grouped-query attention, two query heads per key head.
TEXT = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 4096,
    "initializer_range": WEIGHT_STD,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: "
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}IMAGE_MARK{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


@dataclass(frozen=True)
class TinyFamily:
    """A model, the processor that feeds it, and the id of the token an image embedding replaces."""

    name: str
    model: Any
    processor: Any
    image_token_id: int

    def inputs(self, images: Any, text: str | Sequence[str] = "what is written here?", **processor_kwargs: Any) -> Any:
        """Model inputs for one prompt (``text`` is a string) or a batch of prompts (``text`` is a list)."""
        texts = [text] if isinstance(text, str) else list(text)
        rows = [images] if isinstance(text, str) else list(images)
        pictures = [[row] if isinstance(row, Picture) else list(row) for row in rows]
        prompts = [self.prompt(len(row), words) for row, words in zip(pictures, texts, strict=True)]
        options = {"padding": True, "padding_side": "left", "return_tensors": "pt"} | processor_kwargs
        return self.processor(images=pictures, text=prompts, **options)

    def prompt(self, n_images: int, text: str) -> str:
        content: list[dict[str, str]] = [{"type": "image"}] * n_images + [{"type": "text", "text": text}]
        messages = [{"role": "user", "content": content}]
        return str(self.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))


# --- tokenizer -------------------------------------------------------------------------------------------


def byte_tokenizer(**named_tokens: str) -> Any:
    """A byte-level tokenizer (one token per byte, so any text works) with a family's named special tokens."""
    vocabulary = {token: i for i, token in enumerate(["<pad>", "<s>", "</s>", "<unk>"])}
    for symbol in sorted(pre_tokenizers.ByteLevel.alphabet()):
        vocabulary[symbol] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        extra_special_tokens=named_tokens,
    )


def chat_template(image_mark: str) -> str:
    return CHAT_TEMPLATE.replace("IMAGE_MARK", image_mark)


def seeded(model_class: Any, config: Any) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return model_class(config).float().eval()


# --- LLaVA -----------------------------------------------------------------------------------------------

LLAVA_SIDE, LLAVA_PATCH = 48, 6  # 8 x 8 patches


def clip_config() -> Any:
    return hf.CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=LLAVA_SIDE,
        patch_size=LLAVA_PATCH,
        projection_dim=32,
        initializer_factor=4.0,
    )


def llava_processor(pad: bool = False, strategy: str = "default") -> Any:
    """Short side resized then centre-cropped (``pad=False``), or padded to a square first."""
    size = {"height": LLAVA_SIDE, "width": LLAVA_SIDE}
    if pad:
        image_processor = hf.LlavaImageProcessorPil(do_pad=True, size=size, crop_size=size)
    else:
        image_processor = hf.CLIPImageProcessorPil(size={"shortest_edge": LLAVA_SIDE}, crop_size=size)
    return hf.LlavaProcessor(
        image_processor,
        byte_tokenizer(image_token="<image>"),
        patch_size=LLAVA_PATCH,
        vision_feature_select_strategy=strategy,
        num_additional_image_tokens=1,
        chat_template=chat_template("<image>\n"),
    )


@cache
def llava() -> TinyFamily:
    processor = llava_processor()
    config = hf.LlavaConfig(
        vision_config=clip_config(),
        text_config=hf.LlamaConfig(**TEXT, vocab_size=len(processor.tokenizer)),
        image_token_id=processor.image_token_id,
        image_seq_length=64,
    )
    model = seeded(hf.LlavaForConditionalGeneration, config)
    return TinyFamily("llava", model, processor, processor.image_token_id)


# --- LLaVA-NeXT ------------------------------------------------------------------------------------------

PINPOINTS = [[48, 96], [96, 48], [96, 96], [48, 144], [144, 48]]  # (height, width) of the tile mosaics


@cache
def llava_next() -> TinyFamily:
    size = {"height": LLAVA_SIDE, "width": LLAVA_SIDE}
    processor = hf.LlavaNextProcessor(
        hf.LlavaNextImageProcessorPil(
            size={"shortest_edge": LLAVA_SIDE}, crop_size=size, image_grid_pinpoints=PINPOINTS
        ),
        byte_tokenizer(image_token="<image>"),
        patch_size=LLAVA_PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=chat_template("<image>\n"),
    )
    config = hf.LlavaNextConfig(
        vision_config=clip_config(),
        text_config=hf.MistralConfig(**TEXT, vocab_size=len(processor.tokenizer), sliding_window=None),
        image_token_id=processor.image_token_id,
        image_grid_pinpoints=PINPOINTS,
        image_seq_length=64,
    )
    model = seeded(hf.LlavaNextForConditionalGeneration, config)
    return TinyFamily("llava_next", model, processor, processor.image_token_id)


# --- Qwen2-VL and Qwen2.5-VL -----------------------------------------------------------------------------


class Qwen2VLImageProcessorOnly(hf.Qwen2VLProcessor):  # type: ignore[misc]
    """The video processors of Transformers need torchvision. A processor asks for the parts that its
    ``__init__`` names, so leaving the video part out of the signature gives the same processor without it."""

    def __init__(self, image_processor: Any, tokenizer: Any, chat_template: Any = None) -> None:
        super().__init__(image_processor, tokenizer, chat_template=chat_template)


class Qwen2_5_VLImageProcessorOnly(hf.Qwen2_5_VLProcessor):  # type: ignore[misc]  # noqa: N801
    def __init__(self, image_processor: Any, tokenizer: Any, chat_template: Any = None) -> None:
        super().__init__(image_processor, tokenizer, chat_template=chat_template)


def qwen_parts(processor_class: Any) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """(processor, text configuration, token ids): what the two Qwen generations share."""
    tokenizer = byte_tokenizer(
        image_token="<|image_pad|>",
        video_token="<|video_pad|>",
        vision_bos_token="<|vision_start|>",
        vision_eos_token="<|vision_end|>",
    )
    image_processor = hf.Qwen2VLImageProcessorPil(
        patch_size=4,
        merge_size=2,
        temporal_patch_size=2,
        size={"shortest_edge": 32**2, "longest_edge": 96**2},
    )
    mark = "<|vision_start|><|image_pad|><|vision_end|>"
    processor = processor_class(image_processor, tokenizer, chat_template=chat_template(mark))
    text = {k: v for k, v in TEXT.items() if k != "head_dim"} | {
        "vocab_size": len(tokenizer),
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]},
    }
    token_ids = {
        "image_token_id": tokenizer.image_token_id,
        "video_token_id": tokenizer.video_token_id,
        "vision_start_token_id": tokenizer.vision_bos_token_id,
        "vision_end_token_id": tokenizer.vision_eos_token_id,
    }
    return processor, text, token_ids


@cache
def qwen2_vl() -> TinyFamily:
    processor, text, token_ids = qwen_parts(Qwen2VLImageProcessorOnly)
    vision = {
        "depth": 2,
        "embed_dim": 32,
        "hidden_size": TEXT["hidden_size"],
        "num_heads": 2,
        "mlp_ratio": 2,
        "patch_size": 4,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "initializer_range": WEIGHT_STD,
    }
    config = hf.Qwen2VLConfig(vision_config=vision, text_config=text, **token_ids)
    model = seeded(hf.Qwen2VLForConditionalGeneration, config)
    return TinyFamily("qwen2_vl", model, processor, processor.image_token_id)


@cache
def qwen2_5_vl() -> TinyFamily:
    processor, text, token_ids = qwen_parts(Qwen2_5_VLImageProcessorOnly)
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "out_hidden_size": TEXT["hidden_size"],
        "intermediate_size": 48,
        "num_heads": 2,
        "patch_size": 4,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "window_size": 32,  # the first layer attends within windows of 4 x 4 tokens
        "fullatt_block_indexes": [1],
        "initializer_range": WEIGHT_STD,
    }
    config = hf.Qwen2_5_VLConfig(vision_config=vision, text_config=text, **token_ids)
    model = seeded(hf.Qwen2_5_VLForConditionalGeneration, config)
    return TinyFamily("qwen2_5_vl", model, processor, processor.image_token_id)


# --- Gemma 3 ---------------------------------------------------------------------------------------------


@cache
def gemma3() -> TinyFamily:
    side, patch, n_tokens = 64, 4, 64  # 16 x 16 patches, average-pooled to 8 x 8 tokens
    tokenizer = byte_tokenizer(
        image_token="<image_soft_token>", boi_token="<start_of_image>", eoi_token="<end_of_image>"
    )
    processor = hf.Gemma3Processor(
        hf.Gemma3ImageProcessorPil(size={"height": side, "width": side}),
        tokenizer,
        image_seq_length=n_tokens,
        chat_template=chat_template("<start_of_image>"),
    )
    config = hf.Gemma3Config(
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": side,
            "patch_size": patch,
            "vision_use_head": False,
        },
        text_config=TEXT
        | {
            "vocab_size": len(tokenizer),
            "query_pre_attn_scalar": 16,
            # Shorter than the image block: in decoding the window slides past image tokens.
            "sliding_window": 48,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
        },
        mm_tokens_per_image=n_tokens,
        image_token_id=tokenizer.image_token_id,
        boi_token_id=tokenizer.boi_token_id,
        eoi_token_id=tokenizer.eoi_token_id,
        initializer_range=WEIGHT_STD,
    )
    model = seeded(hf.Gemma3ForConditionalGeneration, config)
    # Transformers starts this projection at zero, which would make all image tokens alike.
    projection = model.model.multi_modal_projector.mm_input_projection_weight
    torch.nn.init.normal_(projection, std=WEIGHT_STD, generator=torch.Generator().manual_seed(0))
    return TinyFamily("gemma3", model, processor, tokenizer.image_token_id)


# --- InternVL --------------------------------------------------------------------------------------------


class InternVLImageProcessorOnly(hf.InternVLProcessor):  # type: ignore[misc]
    """Without the video part, for the reason given above."""

    def __init__(
        self, image_processor: Any, tokenizer: Any, image_seq_length: int = 256, chat_template: Any = None
    ) -> None:
        super().__init__(image_processor, tokenizer, image_seq_length=image_seq_length, chat_template=chat_template)


@cache
def internvl() -> TinyFamily:
    side, patch, n_tokens = 48, 4, 36  # per tile: 12 x 12 patches, pixel-shuffled to 6 x 6 tokens
    tokenizer = byte_tokenizer(
        start_image_token="<img>",
        end_image_token="</img>",
        context_image_token="<IMG_CONTEXT>",
        video_token="<video>",
    )
    processor = InternVLImageProcessorOnly(
        hf.GotOcr2ImageProcessorPil(size={"height": side, "width": side}, max_patches=6),
        tokenizer,
        image_seq_length=n_tokens,
        chat_template=chat_template("<IMG_CONTEXT>\n"),
    )
    config = hf.InternVLConfig(
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": [side, side],
            "patch_size": [patch, patch],
            "initializer_range": WEIGHT_STD,
        },
        text_config=hf.Qwen2Config(**{k: v for k, v in TEXT.items() if k != "head_dim"}, vocab_size=len(tokenizer)),
        image_token_id=tokenizer.context_image_token_id,
        image_seq_length=n_tokens,
    )
    model = seeded(hf.InternVLForConditionalGeneration, config)
    return TinyFamily("internvl", model, processor, tokenizer.context_image_token_id)


FAMILIES: dict[str, Callable[[], TinyFamily]] = {
    build.__name__: build for build in (llava, llava_next, qwen2_vl, qwen2_5_vl, gemma3, internvl)
}
