"""Heads kept apart, on every road by which a row is read, against eager attention."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from families import FAMILIES, TinyFamily
from PIL import Image
from test_capture import PlainVLM

import vea_sdk as vea
from vea_sdk.errors import CaptureError

lineages = pytest.mark.parametrize("name", ["llava", "llava_next", "qwen2_vl", "gemma3", "internvl"])
GREEDY = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False}


def picture(seed: int = 0, width: int = 120, height: int = 80) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def batch(family: TinyFamily) -> Any:
    return family.inputs([[picture(1)], [picture(2)]], ["short", "a question that is somewhat longer"])


def eager_heads(family: TinyFamily, inputs: Any, layers: list[int]) -> np.ndarray:
    """[layers, heads, batch, steps, image tokens] of the last query of every step."""
    family.model.set_attn_implementation("eager")
    try:
        out = family.model.generate(**inputs, **GREEDY, return_dict_in_generate=True, output_attentions=True)
    finally:
        family.model.set_attn_implementation("sdpa")
    prompt, found = inputs["attention_mask"].shape[1], []
    for layer in layers:
        rows = []
        for row, ids in enumerate(inputs["input_ids"]):
            at = (ids == family.image_token_id).nonzero().flatten()
            steps = []
            for number, step in enumerate(out.attentions):
                weights = step[layer][row][:, -1]
                keys = at - max(prompt + number - weights.shape[-1], 0)
                steps.append(torch.where(keys >= 0, weights[:, keys.clamp(min=0)], 0.0))
            rows.append(torch.stack(steps, dim=1))
        found.append(torch.stack(rows, dim=1))
    return torch.stack(found).numpy()


@lineages
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_heads_are_eagers(name: str, implementation: str) -> None:
    family, layers = FAMILIES[name](), [1, 3]
    inputs = batch(family)
    expected = eager_heads(family, inputs, layers)
    family.model.set_attn_implementation(implementation)
    try:
        with vea.capture(family.model, layers=layers, queries="all", per_head=True, top_k=3) as session:
            family.model.generate(**inputs, **GREEDY)
        with vea.capture(family.model, layers=layers, queries="all", top_k=3) as mean:
            family.model.generate(**inputs, **GREEDY)
    finally:
        family.model.set_attn_implementation("sdpa")
    assert session.heads.shape == expected.shape
    assert np.abs(session.heads.numpy() - expected).max() <= 2e-6
    assert np.abs(session.attention.numpy() - expected.mean(1)).max() <= 2e-6
    assert (session.attention - mean.attention).abs().max() <= 1e-7
    assert torch.allclose(session.stats.entropy, mean.stats.entropy, atol=1e-5)
    assert torch.equal(session.topk, mean.topk)


@lineages
def test_attend_keeps_heads(name: str) -> None:
    family = FAMILIES[name]()
    vlm = vea.wrap(family.model, family.processor, layers=[1, 2], plain_prompt="{question}")
    one = vlm.attend(picture(), "what?", heads=True)
    expected = eager_heads(family, family.inputs(picture(), "what?"), [1, 2])[:, :, 0, 0]
    assert one.head_scores is not None
    assert np.abs(one.head_scores - expected).max() <= 2e-6
    assert np.abs(one.of_head(2, 3).scores - expected[1, 3]).max() <= 2e-6
    assert np.abs(one.of_layer(2).scores - expected[1].mean(0)).max() <= 2e-6
    assert vlm.attend(picture(), "what?").head_scores is None
    first, second = vlm.attend([picture(1), picture(2, 70, 60)], "what?", heads=True)
    for evidence in (first, second):
        assert evidence.head_scores is not None
        assert np.abs(evidence.head_scores.mean(1) - evidence.layer_scores).max() <= 1e-7


def test_heads_of_a_direct_sdpa() -> None:
    """A decoder outside Transformers: query and key are seen in torch's own function."""
    torch.manual_seed(0)
    model, x = PlainVLM(), torch.randn(2, 20, 32)
    positions = [list(range(3, 12)), [*range(2, 10), -1]]
    with vea.capture(model, layers="all", image_positions=positions, per_head=True) as session, torch.no_grad():
        model(x)
    hidden = x
    for number, block in enumerate(model.layers):
        with torch.no_grad():
            q, k, _ = block.attention.qkv(hidden).view(2, 20, 3, 4, 8).permute(2, 0, 3, 1, 4).double()  # type: ignore[union-attr, operator]
            a = torch.softmax(q[:, :, -1:] @ k.transpose(2, 3) / 8**0.5, -1)[:, :, 0]
            hidden = block(hidden)
        for row, found in enumerate(positions):
            expected = torch.stack([a[row, :, t] if t >= 0 else torch.zeros(4) for t in found], dim=1)
            assert (session.heads[number, :, row, 0] - expected).abs().max() <= 2e-6


@pytest.mark.parametrize("name", ["llava", "gemma3"])
def test_compiled_decoding_keeps_heads(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decode steps are read inside the graph: heads make no more graphs than their mean does."""
    family = FAMILIES[name]()
    inputs = batch(family)
    expected = eager_heads(family, inputs, [1, 3])
    monkeypatch.setattr(family.model, "forward", torch.compile(family.model.forward, backend="eager"))
    graphs = []
    for per_head in (False, True):
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        with vea.capture(family.model, layers=[1, 3], queries="all", per_head=per_head) as session:
            family.model.generate(**inputs, **GREEDY, cache_implementation="static")
        graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert np.abs(session.heads.numpy() - expected).max() <= 2e-6
    assert np.abs(session.attention.numpy() - expected.mean(1)).max() <= 2e-6
    assert graphs[0] == graphs[1]


def test_heads_that_were_not_kept() -> None:
    family = FAMILIES["llava"]()
    with vea.capture(family.model, layers=[1]) as session, torch.no_grad():
        family.model(**family.inputs(picture(), "what?"))
    with pytest.raises(CaptureError, match="per_head=True"):
        _ = session.heads


def test_layers_with_different_numbers_of_heads() -> None:
    from vea_sdk.capture.recorder import Recorder

    recorder = Recorder([0, 1], None, per_head=True)
    recorder.start(torch.zeros(1, 2, dtype=torch.int64))
    recorder.next_row(0)
    for layer, heads in ((0, 2), (1, 4)):
        recorder._slots(layer, torch.device("cpu"))
        recorder._head_slot(layer, heads, torch.device("cpu"))
    with pytest.raises(CaptureError, match=r"\{0: 2, 1: 4\}"):
        recorder.heads()
