"""Captured rows against the two oracles: prompt and decode steps, alone, left-padded, with two pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

import vea_sdk as vea
from tests.conformance.oracle import Rows, eager_rows, float64_rows
from tests.conformance.tiny import Tiny
from vea_sdk import adapters

NEW_TOKENS = 4  # one from the prompt, three decode steps
FLOAT64_TOLERANCE = 2e-6


class Mismatch(AssertionError):  # noqa: N818 - a finding about an architecture
    """What is wrong, in one line for the table."""


@dataclass
class CaptureResult:
    eager_error: float = 0.0
    float64_error: float = 0.0
    sliding: bool = False  # a layer forgot keys while decoding
    layers: int = 0
    depth: int = 0


def picture(size: tuple[int, int], seed: int = 0) -> Image.Image:
    """Noise, (height, width)."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8))


class Forced(LogitsProcessor):  # type: ignore[misc]
    """Generation that does not depend on ties or end tokens: the same letters in every run."""

    def __init__(self, prompt: int) -> None:
        self.prompt: int | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.prompt = input_ids.shape[1] if self.prompt is None else self.prompt
        forced = torch.full_like(scores, -torch.inf)
        forced[:, 40 + input_ids.shape[1] - self.prompt] = 0.0
        return forced


def generate(model: Any, inputs: Any) -> None:
    forced = LogitsProcessorList([Forced(0)])
    model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False, logits_processor=forced)


def check_capture(tiny: Tiny) -> CaptureResult:
    """Raises Mismatch where a captured row differs from an oracle."""
    result = CaptureResult()
    one, other = picture((60, 84), 1), picture((92, 50), 2)
    prompts = {"one prompt": ([[one]], ["what is written here?"])}
    if tiny.padded:
        prompts["left-padded batch"] = ([[one], [picture((60, 84), 3)]], ["short", "a question of another length"])
    if tiny.several:
        prompts["two pictures"] = ([[one, other]], ["compare them"])
    for name, (pictures, texts) in prompts.items():
        compare(name, tiny, tiny.inputs(pictures, texts), result)
    return result


def compare(name: str, tiny: Tiny, inputs: Any, result: CaptureResult) -> None:
    adapter = adapters.find(tiny.model)
    modules = adapter.attention_modules()
    result.layers, result.depth = len(modules), adapter.n_layers
    expected = tuple(range(adapter.n_layers)) if tiny.layers is None else tiny.layers
    if tuple(modules) != expected:
        raise Mismatch(f"layers {tuple(modules)} are offered, {expected} have softmax attention")
    with eager_rows(tiny.model, modules, tiny.weights_at) as eager:
        generate(tiny.model, inputs)
    with (
        float64_rows(modules) as exact,
        vea.capture(tiny.model, layers=list(modules), queries="all") as session,
    ):
        generate(tiny.model, inputs)
    if tiny.merged:  # the eager module returns the encoder's part by itself
        states = inputs["input_ids"].shape[1]
        exact = {layer: [row[:, -states:] for row in passes] for layer, passes in exact.items()}
    captured = session.attention
    keys = tiny.keys(inputs)
    if not torch.equal(session.image_index, keys):
        raise Mismatch(f"{name}: image tokens at {session.image_index.tolist()}, not {keys.tolist()}")
    prompt = None if tiny.cross or tiny.prompt_stays else inputs["input_ids"].shape[1]
    truth = at_image(eager, keys, prompt)
    if captured.shape != truth.shape:
        raise Mismatch(f"{name}: captured {tuple(captured.shape)}, the model made {tuple(truth.shape)}")
    if truth.isnan().any() or captured.isnan().any():
        raise Mismatch(f"{name}: NaN")
    flat = [layer for layer, rows in zip(modules, truth, strict=True) if rows.amax() < 1.2 * rows.mean()]
    if flat:
        raise Mismatch(f"{name}: layers {flat} are uniform, nothing was compared")
    result.eager_error = max(result.eager_error, float((captured - truth).abs().max()))
    result.float64_error = max(result.float64_error, float((captured - at_image(exact, keys, prompt)).abs().max()))
    if not tiny.cross:
        last = keys.shape[1] and inputs["input_ids"].shape[1] + NEW_TOKENS - 1
        result.sliding |= any(rows[-1].shape[-1] < last for rows in exact.values())
    if result.eager_error > tiny.eager_tolerance:
        raise Mismatch(f"{name}: {result.eager_error:.1e} from eager")
    if result.float64_error > FLOAT64_TOLERANCE:
        raise Mismatch(f"{name}: {result.float64_error:.1e} from float64")


def at_image(rows: Rows, keys: Tensor, prompt: int | None) -> Tensor:
    """The rows at the image keys, [layers, B, steps, M]; keys that left a sliding window hold 0."""
    layers = []
    for layer, passes in rows.items():
        if len(passes) != NEW_TOKENS:
            raise Mismatch(f"layer {layer} computed attention {len(passes)} times in {NEW_TOKENS} passes")
        steps = []
        for step, row in enumerate(passes):
            dropped = 0 if prompt is None else max(prompt + step - row.shape[-1], 0)
            index = keys - dropped
            picked = row.double().gather(1, index.clamp(min=0))
            steps.append(picked.masked_fill((index < 0) | (keys < 0), 0.0))
        layers.append(torch.stack(steps, dim=1))
    return torch.stack(layers)
