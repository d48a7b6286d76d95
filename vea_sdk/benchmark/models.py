"""A vision-language model of random weights around a decoder of chosen shape; nothing is downloaded."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vea_sdk.capture import capture
from vea_sdk.capture.layers import LayerSelection
from vea_sdk.capture.prompt import CACHE_NAMES

IMAGE_TOKEN, SIDE, PATCH = 3, 16, 14  # 16 x 16 image tokens per picture


@dataclass(frozen=True)
class Decoder:
    """Shape of the decoder, as its configuration calls it."""

    layers: int = 8
    heads: int = 16
    kv_heads: int = 4
    head_dim: int = 64
    intermediate: int = 1024

    def as_dict(self) -> dict[str, int | str]:
        return {
            "layers": self.layers,
            "Hq": self.heads,
            "Hkv": self.kv_heads,
            "D": self.head_dim,
            "intermediate": self.intermediate,
        }


def random_llava(decoder: Decoder, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> nn.Module:
    """LLaVA of Transformers: a tiny vision tower, then the decoder. The MLP is narrow, so attention weighs more."""
    import transformers as hf

    hidden = decoder.heads * decoder.head_dim
    text = hf.LlamaConfig(
        hidden_size=hidden,
        intermediate_size=decoder.intermediate,
        num_hidden_layers=decoder.layers,
        num_attention_heads=decoder.heads,
        num_key_value_heads=decoder.kv_heads,
        head_dim=decoder.head_dim,
        vocab_size=1024,
        max_position_embeddings=1 << 17,
        bos_token_id=1,
        eos_token_id=None,
        pad_token_id=0,
    )
    vision = hf.CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=SIDE * PATCH,
        patch_size=PATCH,
    )
    config = hf.LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=IMAGE_TOKEN, image_seq_length=SIDE * SIDE
    )
    with torch.random.fork_rng(devices=[]), torch.device(device):
        torch.manual_seed(0)
        model: nn.Module = hf.LlavaForConditionalGeneration(config)
    return model.to(dtype).eval().requires_grad_(False)


def prompt(model: nn.Module, tokens: int) -> dict[str, Tensor]:
    """A prompt of ``tokens`` tokens, half of them (in whole pictures of 256) image tokens."""
    first = next(model.parameters())
    pictures = max(1, tokens // 2 // SIDE**2)
    g = torch.Generator().manual_seed(0)
    ids = torch.randint(4, 1024, (1, tokens), generator=g)
    ids[:, 1 : 1 + pictures * SIDE**2] = IMAGE_TOKEN
    pixels = torch.randn(pictures, 3, SIDE * PATCH, SIDE * PATCH, generator=g)
    return {
        "input_ids": ids.to(first.device),
        "attention_mask": torch.ones_like(ids).to(first.device),
        "pixel_values": pixels.to(first.device, first.dtype),
    }


@dataclass(frozen=True)
class Taken:
    """Seconds of one ``generate``: until the first token, and from there to the last."""

    prefill: float
    decode: float

    @property
    def total(self) -> float:
        return self.prefill + self.decode


def generate(model: Any, inputs: dict[str, Tensor], new_tokens: int, layers: LayerSelection | None = None) -> Taken:
    """Time greedy generation, with the rows of ``layers`` captured for the prompt and every token, or without (None).

    What capturing costs is counted whole: opening and closing the session, and stacking the rows at the end.
    """
    clock = _Clock(inputs["input_ids"].is_cuda)
    with torch.no_grad(), nullcontext() if layers is None else capture(model, layers, queries="all") as session:
        model.generate(**inputs, max_new_tokens=new_tokens, min_new_tokens=new_tokens, do_sample=False, streamer=clock)
    if session is not None:
        assert (
            session.attention.shape[2] == new_tokens
        )  # the last token is never fed back; the prompt's row comes first
    clock.lap()
    start, _, first, *_, last = clock.laps
    return Taken(first - start, last - first)


class Steps:
    """Steps of decoding over one cache, with the rows of some layers captured or without.

    Every selection has a session of its own, which has seen the prompt, as in ``generate``; it is open while its own
    steps run, so that the others are free of it. A step is timed that follows another one, as most do; the cache then
    forgets both.
    """

    def __init__(self, model: Any, inputs: dict[str, Tensor], selections: Mapping[str, LayerSelection]) -> None:
        self.sessions = {name: capture(model, layers, queries="all") for name, layers in selections.items()}
        with torch.no_grad(), ExitStack() as opened:
            for session in self.sessions.values():
                opened.enter_context(session)
            output = model(**inputs, use_cache=True, logits_to_keep=1)
        name = next(name for name in CACHE_NAMES if name in output)
        ids = inputs["input_ids"]
        batch, seen = ids.shape
        self.cache = output[name]
        self._model = model
        self._fed = [  # as generate() hands it over
            {
                "input_ids": ids[:, -1:],
                "attention_mask": ids.new_ones(batch, keys),
                "position_ids": ids.new_full((batch, 1), keys - 1),
                name: self.cache,
                "use_cache": True,
            }
            for keys in (seen + 1, seen + 2)
        ]

    def measures(self) -> dict[str, Callable[[], float]]:
        """For each selection, and for ``"off"``, what takes one step and returns its seconds."""
        return {name: partial(self._seconds, name) for name in ("off", *self.sessions)}

    def _seconds(self, name: str) -> float:
        with torch.no_grad(), self.sessions.get(name, nullcontext()):
            first, second = self._fed
            self._model(**first)
            clock = _Clock(first["input_ids"].is_cuda)
            self._model(**second)
            clock.lap()
        self.cache.crop(-2)
        return clock.laps[1] - clock.laps[0]


class _Clock:
    """Starts at once. A streamer of ``generate``: it is handed the prompt, then each token as it is made."""

    def __init__(self, cuda: bool) -> None:
        self._cuda = cuda
        self.laps: list[float] = []
        self.lap()

    def put(self, value: Tensor) -> None:
        self.lap()

    def end(self) -> None:
        pass

    def lap(self) -> None:
        if self._cuda:
            torch.cuda.synchronize()
        self.laps.append(time.perf_counter())
