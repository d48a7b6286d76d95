"""What a case is, how it registers, and what the tiny models share.

@case("llava")
def llava() -> Tiny: ...

leave_out("blip", "a captioner: no prompt, no query to read")
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from tests.families import byte_tokenizer

__all__ = ["CASES", "LEFT_OUT", "TEXT", "Tiny", "byte_tokenizer", "case", "leave_out", "tiny_model", "without"]

# Gain of the random weights: outputs keep about the size of their inputs, and attention rows are far from uniform.
GAIN = 1.2

# Decoder shape of most cases: grouped-query attention, two query heads per key head.
TEXT: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 4096,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}

SIZES = ((60, 100), (101, 67), (47, 133))  # (height, width): landscape, portrait, a strip


@dataclass(frozen=True)
class Tiny:
    """One architecture: a model, the processor that feeds it, and what is particular about it."""

    model: Any
    processor: Any
    image_token_id: int | None = None  # the id that image embeddings replace, as the tokenizer knows it
    image_mark: str = ""  # what stands for one picture in a prompt
    layers: tuple[int, ...] | None = None  # the layers with softmax attention (to the picture), default all
    several: bool = True  # whether a prompt may hold two pictures
    padded: bool = True  # whether prompts can be left-padded into a batch
    no_grid: str | None = None  # why image tokens have no place on the picture
    sizes: Sequence[tuple[int, int]] = SIZES  # pictures of the geometry check
    options: Sequence[dict[str, Any]] = ()  # further settings of the image processor, for one picture of that check
    image_keys: Callable[[Any], Tensor] | None = None  # inputs -> [B, M] key positions, default: image_token_id
    cross: bool = False  # image keys belong to cross-attention, not to the prompt
    image_tokens: Callable[[Any, Any], Tensor] | None = None  # (model, inputs) -> [B, M, hidden] for the geometry check
    quiet: str = ""  # regex of module paths whose attention stays on in the geometry check (poolers)
    make_inputs: Callable[..., Any] | None = None  # (tiny, rows of pictures, texts) -> inputs
    largest_bias: float = 0.25  # tokens; about 0.1 is the picture's own rounding, more is a layout that is shifted
    eager_tolerance: float = 1e-5  # a larger one needs its reason beside it
    weights_at: int = 1  # where the eager attention module's output holds its weights
    prompt_stays: bool = False  # sliding layers forget generated tokens only
    chat: bool = True  # whether its checkpoints have a chat template, where there is a mark to put into one
    remark: str = ""  # for the notes of the table
    merged: bool = False  # keys of the prompt's encoder follow the decoder's own in one softmax

    def inputs(self, pictures: Sequence[Sequence[Image.Image]], texts: Sequence[str]) -> Any:
        """Model inputs of a batch: one row of pictures and one text per prompt, left-padded."""
        if self.make_inputs is not None:
            return self.make_inputs(self, pictures, texts)
        prompts = [self.image_mark * len(row) + text for row, text in zip(pictures, texts, strict=True)]
        rows = [list(row) for row in pictures]
        return self.processor(images=rows, text=prompts, padding=True, padding_side="left", return_tensors="pt")

    def keys(self, inputs: Any) -> Tensor:
        """Key positions of the image tokens, [B, M], -1 where a row has fewer."""
        if self.image_keys is not None:
            return self.image_keys(inputs)
        rows = [(row == self.image_token_id).nonzero().flatten() for row in inputs["input_ids"]]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1)


CASES: dict[str, Callable[[], Tiny]] = {}
LEFT_OUT: dict[str, str] = {}


def case(*model_types: str) -> Callable[[Callable[[], Tiny]], Callable[[], Tiny]]:
    """Register the builder of one architecture (of several, when they are the same to the last token)."""

    def register(build: Callable[[], Tiny]) -> Callable[[], Tiny]:
        for model_type in model_types:
            if model_type in CASES or model_type in LEFT_OUT:
                raise ValueError(f"{model_type} is registered twice")
            CASES[model_type] = build
        return build

    return register


def leave_out(model_type: str, why: str) -> None:
    """Say why there is nothing to capture in an architecture."""
    if model_type in CASES or model_type in LEFT_OUT:
        raise ValueError(f"{model_type} is registered twice")
    LEFT_OUT[model_type] = why


def tiny_model(model_class: Any, config: Any, gain: float = GAIN) -> Any:
    """The model with seeded random weights, float32, under SDPA.

    Weights are drawn anew, because the initialisations of Transformers differ: many are so narrow that attention is
    uniform, and gates start at zero, so that nothing behind them would show.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = model_class(config).float().eval()
        for parameter in model.parameters():
            if parameter.dim() > 1:
                fan_in = math.prod(parameter.shape[1:])
                torch.nn.init.normal_(parameter, std=gain / math.sqrt(fan_in))
            elif not parameter.any():
                torch.nn.init.normal_(parameter, std=0.3)
    return model


def without(processor_class: Any, *parts: str) -> Any:
    """The processor class without some of its parts: video processors need torchvision, audio is not tested.

    A processor checks the class of every part; this one takes None for the parts that are left out.
    """
    parts = parts or ("video_processor",)

    def check(self: Any, name: str, argument: Any) -> Any:
        if argument is None and name in parts:
            return None
        return processor_class.check_argument_for_proper_class(self, name, argument)

    return type(processor_class.__name__, (processor_class,), {"check_argument_for_proper_class": check})
