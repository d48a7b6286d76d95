"""Capture inside ``torch.compile``: the same rows as without, in one graph, made once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from families import FAMILIES
from test_capture import TOLERANCE, eager_rows, padded, single
from torch import Tensor, nn
from torch._dynamo.utils import counters
from transformers import CompileConfig

import vea_sdk as vea
from vea_sdk.capture.compiled import taps_of
from vea_sdk.errors import CaptureError

NEW_TOKENS = 4


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()


def generate(model: Any, inputs: Any, compiled: bool = True, **options: Any) -> Tensor:
    """Greedy, with a static cache; the decode steps are one graph without a break, or an error."""
    config = CompileConfig(fullgraph=True, backend="aot_eager", mode=None)
    config._compile_all_devices = True
    how: dict[str, Any] = {"compile_config": config} if compiled else {"disable_compile": True}
    lengths = {"max_new_tokens": NEW_TOKENS, "min_new_tokens": NEW_TOKENS}
    tokens: Tensor = model.generate(
        **inputs, **lengths, do_sample=False, cache_implementation="static", **how, **options
    )
    return tokens


def graphs() -> int:
    return int(counters["stats"]["unique_graphs"])


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "gemma3"])
def test_compiled_decoding_gives_the_rows_of_eager_attention(name: str) -> None:
    family = FAMILIES[name]()
    inputs = padded(family)
    expected, sequences = eager_rows(family, inputs)
    with vea.capture(family.model, layers="all", queries="all", top_k=3) as plain:
        generate(family.model, inputs, compiled=False)
    with vea.capture(family.model, layers="all", queries="all", top_k=3) as session:
        tokens = generate(family.model, inputs)
    assert graphs() > 0  # it was compiled
    assert torch.equal(tokens, sequences)
    assert session.attention.shape == expected.shape
    assert (session.attention - expected).abs().max() <= TOLERANCE
    for figure in ("image_mass", "entropy", "peak", "rapt_image", "rapt_text"):
        found, known = getattr(session.stats, figure), getattr(plain.stats, figure)
        torch.testing.assert_close(found, known, atol=1e-5, rtol=1e-5, equal_nan=True)  # NaN: a window without image
    assert torch.equal(session.topk.sum(-1), plain.topk.sum(-1))


def test_one_graph_serves_all_sessions_and_the_model_keeps_its_own() -> None:
    """torch gives up on a function after eight graphs, so a session must not cost one each."""
    family = FAMILIES["llava"]()
    inputs = single(family)
    alone = generate(family.model, inputs)
    before = graphs()
    rows = []
    for _ in range(3):
        with vea.capture(family.model, layers=[1, 3], queries="all") as session:
            assert torch.equal(generate(family.model, inputs), alone)
        rows.append(session.attention)
    assert torch.equal(rows[0], rows[1])
    assert graphs() == before + 1
    assert torch.equal(generate(family.model, inputs), alone)
    assert graphs() == before + 1


def test_the_last_prompt_token_alone_leaves_the_graph_as_it_is() -> None:
    family = FAMILIES["llava"]()
    inputs = padded(family)
    expected, _ = eager_rows(family, inputs)
    with vea.capture(family.model, layers="all") as session:
        generate(family.model, inputs)
    assert (session.attention - expected[:, :, :1]).abs().max() <= TOLERANCE


def test_nested_sessions_read_what_each_wants() -> None:
    family = FAMILIES["llava"]()
    inputs = padded(family)
    expected, _ = eager_rows(family, inputs)
    with (
        vea.capture(family.model, layers=[0, 2], queries="generated") as outer,
        vea.capture(family.model, layers=[2, 3], queries="all") as inner,
        vea.capture(family.model, layers=[3], queries="last") as last,
    ):
        generate(family.model, inputs)
    assert (outer.attention - expected[[0, 2], :, 1:]).abs().max() <= TOLERANCE
    assert (inner.attention - expected[[2, 3]]).abs().max() <= TOLERANCE
    assert (last.attention - expected[[3], :, :1]).abs().max() <= TOLERANCE


@pytest.mark.parametrize("part", ["decoder", "model"])
def test_a_compiled_forward(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """``model.forward = torch.compile(model.forward)``: the prompt's pass is a graph, too."""
    family = FAMILIES["llava"]()
    inputs = padded(family)
    expected, _ = eager_rows(family, inputs)
    module = family.model.get_decoder() if part == "decoder" else family.model
    whole = part == "decoder"  # the model itself asks which tokens are the picture's, and breaks its graph there
    monkeypatch.setattr(module, "forward", torch.compile(module.forward, backend="aot_eager", fullgraph=whole))
    with vea.capture(family.model, layers="all", queries="all") as session:
        generate(family.model, inputs, compiled=False)
    assert graphs() > 0
    assert (session.attention - expected).abs().max() <= TOLERANCE


def test_nothing_is_left_behind() -> None:
    family = FAMILIES["llava"]()
    inputs = single(family)

    def attached() -> list[Any]:
        modules = family.model.modules()
        return [(set(vars(m)), list(m._forward_pre_hooks), list(m._forward_hooks)) for m in modules]

    before = attached()

    with pytest.raises(RuntimeError, match="stop here"), vea.capture(family.model, layers="all", queries="all"):
        generate(family.model, inputs, streamer=_Failing())
    with vea.capture(family.model, layers="all", queries="all") as session:
        generate(family.model, inputs)
    assert session.attention.shape[2] == NEW_TOKENS
    assert attached() == before


class _Failing:
    """A streamer that fails at the third token."""

    def __init__(self) -> None:
        self.calls = 0

    def put(self, value: Tensor) -> None:
        self.calls += 1
        if self.calls == 3:
            raise RuntimeError("stop here")

    def end(self) -> None: ...


def test_a_layer_that_stays_hidden_is_an_error() -> None:
    """Compiled before, with a ``forward`` of its own: the old graph cannot be told from a new one."""
    family = FAMILIES["llava"]()
    inputs = single(family)
    attention: nn.Module = family.model.get_decoder().layers[1].self_attn
    attention.forward = attention.forward  # type: ignore[method-assign]
    try:
        generate(family.model, inputs)
        with (
            pytest.raises(CaptureError, match=r"layers \[1\] stayed hidden.*torch\.compiler\.reset"),
            vea.capture(family.model, layers=[1], queries="all"),
        ):
            generate(family.model, inputs)
    finally:
        del attention.forward
    assert taps_of(attention) is None
