"""Captured rows against Transformers' own eager ``output_attentions``, and what a session leaves behind."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import sys
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from families import FAMILIES, TinyFamily
from PIL import Image
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, AttentionInterface

import vea_sdk as vea
from vea_sdk import _native, ops
from vea_sdk.capture import interception
from vea_sdk.capture.call import from_interface
from vea_sdk.capture.prompt import CACHE_NAMES, Step
from vea_sdk.errors import CaptureError, ImageTokenError, InvalidInputError, LayerError, UnsupportedModelError

TOLERANCE = 2e-6  # float32: two orders of summation over at most a few hundred keys
NEW_TOKENS = 4  # one from the prompt, three decode steps
names = pytest.mark.parametrize("name", FAMILIES)


def picture(seed: int, width: int = 90, height: int = 70) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def single(family: TinyFamily) -> Any:
    return family.inputs(picture(0), "what is written here?")


def padded(family: TinyFamily) -> Any:
    return family.inputs([[picture(1)], [picture(2)]], ["short", "a question of quite another length"])


def generate(model: Any, inputs: Any, **options: Any) -> Any:
    options = {"max_new_tokens": NEW_TOKENS, "min_new_tokens": NEW_TOKENS, "do_sample": False} | options
    return model.generate(**inputs, **options)


@contextmanager
def eager(model: Any) -> Iterator[None]:
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def eager_rows(family: TinyFamily, inputs: Any, **options: Any) -> tuple[Tensor, Tensor]:
    """Head means of generate()'s own eager weights over the image keys: ([layers, B, steps, M], sequences)."""
    with eager(family.model):
        out = generate(family.model, inputs, output_attentions=True, return_dict_in_generate=True, **options)
    index = [(row == family.image_token_id).nonzero().flatten() for row in inputs["input_ids"]]
    prompt = inputs["input_ids"].shape[1]
    steps = []
    for step, layers in enumerate(out.attentions):
        seen = prompt + step
        rows = []
        for weights in layers:  # [B, H, Q, K]; a sliding layer has dropped its first seen - K keys
            full = torch.zeros(weights.shape[0], seen, device=weights.device)
            full[:, seen - weights.shape[-1] :] = weights[:, :, -1].mean(1)
            rows.append(torch.stack([row[i] for row, i in zip(full, index, strict=True)]))
        steps.append(torch.stack(rows))
    return torch.stack(steps, dim=2), out.sequences


@names
@pytest.mark.parametrize("batch", [single, padded])
@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_rows_equal_eager_attention(name: str, batch: Any, cache: str) -> None:
    if (name, cache) == ("gemma3", "static") and transformers.__version__.startswith("5.16."):
        pytest.skip("Transformers 5.16 raises IndexError by itself in a static cache that slides")
    family = FAMILIES[name]()
    inputs = batch(family)
    expected, sequences = eager_rows(family, inputs)
    with vea.capture(family.model, layers="all", queries="all") as session:
        generated = generate(family.model, inputs, cache_implementation=cache)
    assert torch.equal(generated, sequences)
    assert session.attention.shape == expected.shape
    assert (session.attention - expected).abs().max() <= TOLERANCE
    assert expected.amax((0, -1)).min() > 1e-3  # the rows compared hold something


def check_decoding(family: TinyFamily, inputs: Any, tolerance: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty rows against eager attention, most of which must go the short way."""
    long_way, calls = ops.image_attention, []
    monkeypatch.setattr(ops, "image_attention", lambda *args, **kwargs: calls.append(0) or long_way(*args, **kwargs))
    tokens = {"max_new_tokens": 20, "min_new_tokens": 20}
    expected, _ = eager_rows(family, inputs, **tokens)
    with vea.capture(family.model, layers="all", queries="all") as session:
        generate(family.model, inputs, **tokens)
    assert session.attention.shape[2] == 20
    assert (session.attention - expected).abs().max() <= tolerance
    if family.name != "gemma3":  # whose sliding layers drop keys of the prompt
        assert len(calls) == 2 * len(session.layers)  # the prompt, and the first step, before which there is no buffer


@names
def test_most_steps_of_decoding_go_the_short_way(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if _native.extension() is None:
        pytest.skip("plain torch has no shorter way")
    family = FAMILIES[name]()
    check_decoding(family, single(family), TOLERANCE, monkeypatch)


@names
def test_queries_select_rows(name: str) -> None:
    family = FAMILIES[name]()
    inputs = padded(family)
    found = {}
    for queries in ("last", "generated", "all"):
        with vea.capture(family.model, layers=[1, 3], queries=queries) as session:  # type: ignore[arg-type]
            generate(family.model, inputs)
        found[queries] = session.attention
        assert session.layers == (1, 3)
    assert [found[queries].shape[2] for queries in found] == [1, 3, 4]
    assert torch.equal(torch.cat([found["last"], found["generated"]], 2), found["all"])


def test_the_mask_of_weights_leaves_out_tokens_without_a_key() -> None:
    """Image keys that a sliding window has left score 0 and are no top patches, whoever computes the row."""
    family = FAMILIES["gemma3"]()
    inputs = padded(family)
    with vea.capture(family.model, layers="all", queries="all", top_k=3) as kernel:
        generate(family.model, inputs)
    with eager(family.model), vea.capture(family.model, layers="all", queries="all", top_k=3) as weights:
        generate(family.model, inputs)
    counts = kernel.topk.sum(-1)
    assert counts.min() < 3  # some have left
    assert torch.equal(counts, weights.topk.sum(-1))


@names
def test_eager_models_are_read_from_their_weights(name: str) -> None:
    family = FAMILIES[name]()
    inputs = padded(family)
    expected, _ = eager_rows(family, inputs)
    with eager(family.model), vea.capture(family.model, layers="all", queries="all", top_k=5) as session:
        generate(family.model, inputs)
    assert (session.attention - expected).abs().max() <= 1e-7
    known = session.attention.clone()
    known[:, :, 1:][known[:, :, 1:] == 0] = torch.nan  # keys that a sliding cache has dropped
    assert torch.equal(session.topk, vea.ops.reference.topk_mask(known.flatten(0, 2), 5).view_as(session.topk))


@names
def test_right_padding_reads_the_last_valid_row(name: str) -> None:
    family = FAMILIES[name]()
    texts = ["short", "a question of quite another length"]
    pictures = [[picture(1)], [picture(2)]]
    together = family.inputs(pictures, texts, padding_side="right")
    with vea.capture(family.model, layers="all") as session, torch.no_grad():
        family.model(**together)
    for row, (image, text) in enumerate(zip(pictures, texts, strict=True)):
        with vea.capture(family.model, layers="all") as alone, torch.no_grad():
            family.model(**family.inputs(image, text))
        m = alone.attention.shape[-1]
        assert (session.attention[:, row, :, :m] - alone.attention[:, 0]).abs().max() <= 5e-6


def test_generation_without_a_cache_gives_the_same_rows() -> None:
    family = FAMILIES["llava"]()
    inputs = single(family)
    with vea.capture(family.model, layers="all", queries="all") as cached:
        generate(family.model, inputs)
    with vea.capture(family.model, layers="all", queries="all") as uncached:
        generate(family.model, inputs, use_cache=False)
    assert (cached.attention - uncached.attention).abs().max() <= 5e-6


@pytest.mark.parametrize("top_k", [None, 2])
def test_long_generation_outgrows_the_first_buffer(top_k: int | None) -> None:
    family = FAMILIES["llava"]()
    inputs, tokens = single(family), {"max_new_tokens": 80, "min_new_tokens": 80}
    expected, _ = eager_rows(family, inputs, **tokens)
    with vea.capture(family.model, layers=[0, 3], queries="generated", top_k=top_k) as session:
        generate(family.model, inputs, **tokens)
    assert session.attention.shape[2] == 79
    assert (session.attention - expected[[0, 3], :, 1:]).abs().max() <= TOLERANCE
    if top_k is not None:
        assert (session.topk.sum(-1) == top_k).all()


def test_an_open_session_does_not_keep_the_cache() -> None:
    family = FAMILIES["llava"]()
    with vea.capture(family.model, layers="all", queries="all"):
        out = generate(family.model, single(family), return_dict_in_generate=True)
        cache = weakref.ref(out[next(name for name in CACHE_NAMES if name in out)])
        del out
        gc.collect()
        assert cache() is None


@names
def test_two_pictures(name: str) -> None:
    family = FAMILIES[name]()
    inputs = family.inputs([picture(3), picture(4, 60, 110)], "compare")
    expected, _ = eager_rows(family, inputs)
    with vea.capture(family.model, layers="all", queries="all") as session:
        generate(family.model, inputs)
    assert (session.attention - expected).abs().max() <= TOLERANCE


def test_prompts_with_different_image_token_counts_are_padded_with_zeros() -> None:
    family = FAMILIES["qwen2_vl"]()
    small, large = picture(5, 40, 40), picture(6, 90, 90)
    inputs = family.inputs([[small], [large]], ["one", "two"])
    with vea.capture(family.model, layers="all") as session, torch.no_grad():
        family.model(**inputs)
    tokens = (session.image_index >= 0).sum(1)
    assert tokens[0] < tokens[1] == session.attention.shape[-1]
    assert (session.attention[:, 0, :, tokens[0] :] == 0).all()


def test_embeddings_need_image_positions() -> None:
    family = FAMILIES["llava"]()
    inputs = single(family)
    model = family.model
    with vea.capture(model, layers="all") as expected, torch.no_grad():
        model(**inputs)
    with torch.no_grad():
        features = model.get_image_features(pixel_values=inputs["pixel_values"]).pooler_output
        embeds = model.get_input_embeddings()(inputs["input_ids"])
        is_image = inputs["input_ids"] == family.image_token_id
        embeds[is_image] = torch.cat(list(features))
    fed = {"inputs_embeds": embeds, "attention_mask": inputs["attention_mask"]}
    with vea.capture(model, layers="all") as session, torch.no_grad():
        model(**fed)
    with pytest.raises(ImageTokenError, match="image_positions"):
        _ = session.attention
    for positions in (is_image, is_image[0].nonzero().flatten().tolist()):
        with vea.capture(model, layers="all", image_positions=positions) as session, torch.no_grad():
            model(**fed)
        assert (session.attention - expected.attention).abs().max() <= 1e-6
    with (
        vea.capture(model, layers="all", image_positions=[0, 10_000]),
        pytest.raises(InvalidInputError, match="10000"),
    ):
        model(**fed)


def test_the_base_model_serves_as_well() -> None:
    family = FAMILIES["gemma3"]()
    inputs = single(family)
    with vea.capture(family.model, layers="all") as whole, torch.no_grad():
        family.model(**inputs)
    with vea.capture(family.model.model, layers="all") as base, torch.no_grad():
        family.model(**inputs)
    assert torch.equal(whole.attention, base.attention)


def test_a_second_prompt_starts_anew() -> None:
    family = FAMILIES["llava"]()
    first, second = single(family), family.inputs(picture(9), "another question")
    with vea.capture(family.model, layers="all", queries="all") as session:
        generate(family.model, first)
        generate(family.model, second)
    with vea.capture(family.model, layers="all", queries="all") as alone:
        generate(family.model, second)
    assert torch.equal(session.attention, alone.attention)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_models(dtype: torch.dtype) -> None:
    family = FAMILIES["qwen2_5_vl"]()
    inputs = single(family)
    with vea.capture(family.model, layers=[0]) as full, torch.no_grad():
        family.model(**inputs)
    try:
        half = family.model.to(dtype)
        with vea.capture(half, layers=[0]) as session, torch.no_grad():
            half(**inputs.to(dtype=dtype))
    finally:
        family.model.float()
    assert session.attention.dtype == torch.float32
    # The first layer sees rounded embeddings; a tenth of the largest probability is far below a wrong row or scale.
    assert (session.attention - full.attention).abs().max() <= 0.1 * full.attention.max()


# --- stats ----------------------------------------------------------------------------------------------------------


@names
def test_stats_follow_their_formulas(name: str) -> None:
    family = FAMILIES[name]()
    inputs = padded(family)
    with eager(family.model), torch.no_grad():
        weights = family.model(**inputs, output_attentions=True).attentions
    with vea.capture(family.model, layers="all", top_k=3) as session, torch.no_grad():
        family.model(**inputs)
    stats = session.stats
    for layer, heads in enumerate(weights):
        for row in range(2):
            a = heads[row, :, -1].mean(0).double()
            image = inputs["input_ids"][row] == family.image_token_id
            valid = inputs["attention_mask"][row].bool()
            share = a[image] / a[image].sum()
            mean = a[valid].mean()
            for got, expected in (
                (stats.image_mass, a[image].sum()),
                (stats.peak, share.max()),
                (stats.entropy, -(share * share.log()).nan_to_num().sum()),
                (stats.rapt_image, a[image].mean() / mean),
                (stats.rapt_text, a[valid & ~image].mean() / mean),
            ):
                assert float(got[layer, row, 0]) == pytest.approx(float(expected), rel=1e-3, abs=1e-5)


# --- models that are not Transformers' ------------------------------------------------------------------------------


class PlainAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = self.qkv(x).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(y.transpose(1, 2).reshape(batch, length, width))


class PlainBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention = PlainAttention(width, 4)
        self.mlp = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(x)
        return x + torch.tanh(self.mlp(x))


class PlainVLM(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(PlainBlock(32) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def test_a_plain_torch_model_is_read_at_its_sdpa_call() -> None:
    torch.manual_seed(0)
    model = PlainVLM()
    x = torch.randn(2, 20, 32)
    positions = [list(range(3, 12)), [*range(2, 10), -1]]
    with vea.capture(model, layers="all", image_positions=positions) as session, torch.no_grad():
        model(x)
    hidden = x
    for number, block in enumerate(model.layers):
        with torch.no_grad():
            q, k, _ = block.attention.qkv(hidden).view(2, 20, 3, 4, 8).permute(2, 0, 3, 1, 4).double()  # type: ignore[union-attr, operator]
            a = torch.softmax(q[:, :, -1:] @ k.transpose(2, 3) / 8**0.5, -1)[:, :, 0].mean(1)
            hidden = block(hidden)
        for row, found in enumerate(positions):
            expected = torch.tensor([float(a[row, t]) if t >= 0 else 0.0 for t in found])
            assert (session.attention[number, row, 0] - expected).abs().max() <= TOLERANCE


def test_hidden_attention_is_an_error() -> None:
    class Hidden(PlainAttention):
        def forward(self, x: Tensor) -> Tensor:
            return self.out(x)

    model = PlainVLM()
    model.layers[1].attention = Hidden(32, 4)
    with (
        vea.capture(model, layers="all", image_positions=[1, 2]),
        pytest.raises(CaptureError, match="layer 1"),
    ):
        model(torch.randn(1, 5, 32))


def test_a_layer_that_is_passed_by_in_the_first_of_two_passes_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    family = FAMILIES["llava"]()
    part, first = family.model.model, family.model.model.language_model.layers[0]
    original = part.forward

    @wraps(original)
    def twice(**inputs: Any) -> Any:
        with monkeypatch.context() as passed_by:
            passed_by.setattr(first, "forward", lambda hidden, **_: hidden)
            original(**inputs)
        return original(**inputs)

    monkeypatch.setattr(part, "forward", twice)
    with vea.capture(family.model, layers=[0]), pytest.raises(CaptureError, match=r"layers \[0\] was not computed"):
        family.model(**single(family))


def test_a_module_that_runs_twice_in_a_step_of_decoding_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    family = FAMILIES["llava"]()
    attention = family.model.model.language_model.layers[2].self_attn
    original, runs = attention.forward, []

    @wraps(original)
    def forward(*args: Any, **kwargs: Any) -> Any:
        runs.append(0)
        if len(runs) == 3:  # the second step of decoding goes the short way
            original(*args, **kwargs)
        return original(*args, **kwargs)

    monkeypatch.setattr(attention, "forward", forward)
    with (
        vea.capture(family.model, layers=[1, 2], queries="all"),
        pytest.raises(CaptureError, match=r"layer 2 \(LlamaAttention\) ran 2 times"),
    ):
        generate(family.model, single(family))
    assert len(runs) == 3


# --- what a session leaves behind -----------------------------------------------------------------------------------


def traces(model: nn.Module) -> Any:
    hooks = [
        (
            dict(m._forward_hooks),
            dict(m._forward_pre_hooks),
            dict(m._forward_hooks_always_called),
            set(vars(m)),
        )
        for m in model.modules()
    ]
    registry = (dict(ALL_ATTENTION_FUNCTIONS), dict(ALL_ATTENTION_FUNCTIONS._local_mapping))
    return (
        hooks,
        registry,
        AttentionInterface.get_interface,
        dict(vars(AttentionInterface)),
        interception.ACTIVE.get(),
    )


@pytest.mark.parametrize("call", ["model", "part", "decoder"])
def test_a_layer_that_is_passed_by_is_an_error(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever part of the model was called."""
    family = FAMILIES["llava"]()
    inputs, decoder = single(family), family.model.model.language_model
    embeds = family.model.get_input_embeddings()(inputs["input_ids"].clamp(max=50))
    positions = (inputs["input_ids"] == family.image_token_id).nonzero()[:, 1]
    run = {
        "model": lambda: family.model(**inputs),
        "part": lambda: family.model.model(**inputs),
        "decoder": lambda: decoder(inputs_embeds=embeds),
    }[call]
    with vea.capture(family.model, layers=[0, 1], image_positions=positions) as session:
        run()
        assert (session.attention > 0).all()
        with monkeypatch.context() as passed_by:
            passed_by.setattr(decoder.layers[1], "forward", lambda hidden, **_: hidden)
            with pytest.raises(CaptureError, match=r"layers \[1\] was not computed"):
                run()
        run()


@names
def test_a_hundred_captures_leave_no_trace(name: str) -> None:
    family = FAMILIES[name]()
    inputs = single(family)
    generate(family.model, inputs)  # at its first pass Transformers puts hooks of its own on the model
    before = traces(family.model)
    for _ in range(100):
        with vea.capture(family.model, layers=[1, 2]):
            pass
    with vea.capture(family.model, layers="all", queries="all", top_k=1):
        generate(family.model, inputs)
    assert traces(family.model) == before


@pytest.mark.parametrize("name", ["llava", "gemma3"])
def test_an_exception_inside_leaves_no_trace(name: str) -> None:
    family = FAMILIES[name]()
    inputs = single(family)
    generate(family.model, inputs)
    before = traces(family.model)
    with pytest.raises(ZeroDivisionError), vea.capture(family.model, layers="all"):
        raise ZeroDivisionError

    class Interrupt(BaseException):
        pass

    def interrupt(*_: Any) -> None:
        raise Interrupt

    handle = vea.adapters.find(family.model).attention_modules()[2].register_forward_hook(interrupt)
    with pytest.raises(Interrupt), vea.capture(family.model, layers="all"):
        family.model(**inputs)
    handle.remove()
    assert traces(family.model) == before


def test_an_interrupt_inside_a_plain_model_takes_its_function_mode_away() -> None:
    class Interrupt(BaseException):
        pass

    class Interrupted(PlainAttention):
        def forward(self, x: Tensor) -> Tensor:
            raise Interrupt

    model = PlainVLM()
    model.layers[1].attention = Interrupted(32, 4)
    depth = torch._C._len_torch_function_stack()
    with pytest.raises(Interrupt), vea.capture(model, layers="all", image_positions=[1]):
        model(torch.randn(1, 5, 32))
    assert torch._C._len_torch_function_stack() == depth


def test_sessions_nest_and_threads_keep_apart() -> None:
    family = FAMILIES["llava"]()
    first, second = single(family), family.inputs(picture(8), "two")
    expected = {}
    for key, inputs in (("first", first), ("second", second)):
        with vea.capture(family.model, layers="all") as session, torch.no_grad():
            family.model(**inputs)
        expected[key] = session.attention
    with vea.capture(family.model, layers=[0]) as outer, vea.capture(family.model, layers=[3]) as inner:
        generate(family.model, first)
    assert torch.equal(outer.attention[0], expected["first"][0])
    assert torch.equal(inner.attention[0], expected["first"][3])

    found: dict[str, Tensor] = {}
    barrier = threading.Barrier(2)

    def run(key: str, inputs: Any) -> None:
        with vea.capture(family.model, layers="all") as session, torch.no_grad():
            barrier.wait()
            for _ in range(5):
                family.model(**inputs)
        found[key] = session.attention

    threads = [threading.Thread(target=run, args=item) for item in (("first", first), ("second", second))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert torch.equal(found["first"], expected["first"])
    assert torch.equal(found["second"], expected["second"])


def test_sessions_come_and_go_while_other_threads_run_the_model() -> None:
    family = FAMILIES["llava"]()
    inputs = single(family)
    with vea.capture(family.model, layers="all") as session, torch.no_grad():
        family.model(**inputs)
    same: list[bool] = []

    def run() -> None:
        for _ in range(15):
            with vea.capture(family.model, layers="all") as mine, torch.no_grad():
                family.model(**inputs)
            same.append(torch.equal(mine.attention, session.attention))

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # threads change places often
    try:
        threads = [threading.Thread(target=run) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert same == [True] * 60


def test_running_in_another_thread_is_told() -> None:
    family = FAMILIES["llava"]()
    inputs = single(family)
    with vea.capture(family.model, layers="all") as session:
        thread = threading.Thread(target=lambda: generate(family.model, inputs))
        thread.start()
        thread.join()
    with pytest.raises(CaptureError, match="thread"):
        _ = session.attention


def test_outputs_are_untouched() -> None:
    family = FAMILIES["gemma3"]()
    inputs = padded(family)
    with torch.no_grad():
        expected = family.model(**inputs).logits
        with vea.capture(family.model, layers="all"):
            found = family.model(**inputs).logits
    assert torch.equal(found, expected)


# --- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([], "names no layer"),
        ([4], "layer 4 is out of range: the model has 4 layers"),
        ([-5], "layer -5 is out of range"),
        ((0.5, 1.5), "0 <= low < high <= 1"),
        ("deep", "'deep' is not a selection"),
        ([1.5], "1.5 is not a layer number"),
    ],
)
def test_bad_layers(layers: Any, message: str) -> None:
    with pytest.raises(LayerError, match=message):
        vea.capture(FAMILIES["llava"]().model, layers=layers)


def test_layer_selections() -> None:
    model = FAMILIES["llava"]().model
    assert vea.capture(model, layers="all").layers == (0, 1, 2, 3)
    assert vea.capture(model, layers=[-1, 1, 1]).layers == (1, 3)
    assert vea.capture(model, layers=(0.5, 1.0)).layers == (2, 3)
    assert vea.capture(model, layers=(0.3, 0.8)).layers == (2, 3)  # at depths of 0.5 and 0.75
    assert vea.capture(model, layers=(0.25, 0.75)).layers == (1, 2)
    with pytest.warns(UserWarning, match="no profile"):
        assert vea.capture(model).layers == (2, 3)


def test_a_layer_without_softmax_attention_is_named() -> None:
    class Partial(vea.adapters.Adapter):
        def attention_modules(self) -> dict[int, nn.Module]:
            return {number: module for number, module in super().attention_modules().items() if number != 2}

    with pytest.raises(LayerError, match=r"layers \[2\] have no softmax attention"):
        vea.capture(FAMILIES["llava"]().model, layers=[1, 2], adapter=Partial)


def test_bad_options() -> None:
    model = FAMILIES["llava"]().model
    with pytest.raises(InvalidInputError, match="'first' is unknown"):
        vea.capture(model, layers="all", queries="first")  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="top_k=-1"):
        vea.capture(model, layers="all", top_k=-1)
    with pytest.raises(UnsupportedModelError):
        vea.capture(nn.Linear(3, 3), layers="all")


def test_a_prompt_without_image_tokens() -> None:
    family = FAMILIES["llava"]()
    ids = family.processor.tokenizer("no picture at all", return_tensors="pt")
    with vea.capture(family.model, layers="all") as session, torch.no_grad():
        family.model(**ids)
    with pytest.raises(ImageTokenError, match="image"):
        _ = session.attention


def test_more_patches_than_tokens() -> None:
    family = FAMILIES["llava"]()
    with vea.capture(family.model, layers="all", top_k=65), pytest.raises(InvalidInputError, match="65"):
        family.model(**single(family))


def test_results_before_anything_ran() -> None:
    with vea.capture(FAMILIES["llava"]().model, layers="all") as session:
        pass
    with pytest.raises(CaptureError, match="did not run"):
        _ = session.attention
    with pytest.raises(CaptureError, match="top_k="):
        _ = session.topk


def test_nan_is_reported_not_hidden() -> None:
    family = FAMILIES["llava"]()
    inputs = single(family)
    inputs["pixel_values"][:] = torch.nan
    with vea.capture(family.model, layers="all") as session, torch.no_grad():
        family.model(**inputs)
    assert session.attention.isnan().all()


def test_calls_that_hide_their_mask_or_keys_are_refused() -> None:
    q = torch.zeros(1, 1, 1, 4)
    with pytest.raises(CaptureError, match="flex"):
        from_interface(nn.Identity(), q, q, object(), {}, "flex_attention")
    with pytest.raises(CaptureError, match="generate_batch"):
        from_interface(nn.Identity(), q, q, None, {"cache": object()}, "sdpa")


def test_a_layer_may_get_the_end_of_the_prompt_only() -> None:
    def step(*last_tokens: int) -> Step:
        return Step("prompt", len(last_tokens), 10, 10, torch.tensor(last_tokens), torch.device("cpu"))

    assert step(9, 7).row(10).tolist() == [9, 7]
    assert step(9, 9).row(1).tolist() == [0, 0]
    assert step(9, 8).row(3).tolist() == [2, 1]
    with pytest.raises(CaptureError, match="left"):
        step(9, 7).row(1)


# --- copies of a model in a session -----------------------------------------------------------------------------------


def by_torch(model: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    copied: nn.Module = torch.load(file, weights_only=False)
    return copied


@pytest.mark.parametrize("how", [copy.deepcopy, copy.copy, lambda model: pickle.loads(pickle.dumps(model)), by_torch])
@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("part", ["model", "decoder"])
def test_copies_are_watched_by_nobody(part: str, before: bool, how: Any) -> None:
    """Made before any pass and after one, and run while the session is open."""
    family = FAMILIES["llava"].__wrapped__()
    if not before and part == "model" and how not in (copy.deepcopy, copy.copy):
        pytest.skip("once its tower has run, Transformers' own hooks keep this model from being pickled")
    inputs, other = single(family), family.inputs(picture(9), "and here?")
    with torch.no_grad(), vea.capture(FAMILIES["llava"]().model, layers="all") as alone:
        FAMILIES["llava"]().model(**inputs)
    with torch.no_grad(), vea.capture(family.model, layers="all") as session:
        if not before:
            family.model(**inputs)
        source = family.model if part == "model" else family.model.model.language_model
        copied = how(source)
        if before:
            family.model(**inputs)
        if how is not copy.copy:  # which shares the layers with the model
            fed = dict(other) if part == "model" else {"input_ids": other["input_ids"].clamp(max=99)}
            plain = FAMILIES["llava"]().model if part == "model" else FAMILIES["llava"]().model.model.language_model
            assert torch.equal(copied(**fed, use_cache=False)[0], plain(**fed, use_cache=False)[0])
        rows = session.attention
    assert (rows - alone.attention).abs().max() <= 1e-7
    with vea.capture(copied if part == "model" else family.model, layers="all") as session, torch.no_grad():
        (copied if part == "model" else family.model)(**inputs)  # and may be watched itself, later
    assert (session.attention - alone.attention).abs().max() <= 1e-7
