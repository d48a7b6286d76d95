"""Every way ``generate()`` can run: beams, samples, cached prefixes, chunks, drafts, threads, sessions in sessions."""

from __future__ import annotations

import copy
import threading
from typing import Any

import pytest
import torch
import transformers
from families import FAMILIES, TinyFamily
from test_capture import TOLERANCE, eager, eager_rows, generate, padded, picture, single
from torch import Tensor
from transformers import DynamicCache, StaticCache

import vea_sdk as vea
from vea_sdk.capture.call import from_interface
from vea_sdk.errors import CaptureError, ImageTokenError, InvalidInputError

several = pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "gemma3"])


def step_rows(out: Any, ids: Tensor, image_token_id: int) -> Tensor:
    """Head means of the eager weights that ``generate`` returned, [layers, rows, steps, M], ``ids`` one per row."""
    index = torch.stack([(row == image_token_id).nonzero().flatten() for row in ids])
    steps = []
    for step, layers in enumerate(out.attentions):
        seen, rows = ids.shape[1] + step, []
        for weights in layers:
            full = torch.zeros(weights.shape[0], seen)
            full[:, seen - weights.shape[-1] :] = weights[:, :, -1].mean(1)
            rows.append(full.gather(1, index))
        steps.append(torch.stack(rows))
    return torch.stack(steps, dim=2)


# --- beams and samples ----------------------------------------------------------------------------------------------


@several
@pytest.mark.parametrize("batch", [single, padded])
def test_rows_follow_the_beams(name: str, batch: Any) -> None:
    family = FAMILIES[name]()
    inputs = batch(family)
    options = {"num_beams": 3, "return_dict_in_generate": True}
    with eager(family.model):
        expected = generate(family.model, inputs, output_attentions=True, **options)
    with vea.capture(family.model, layers="all", queries="all") as session:
        out = generate(family.model, inputs, **options)
    assert torch.equal(out.sequences, expected.sequences)
    rows = step_rows(expected, inputs["input_ids"].repeat_interleave(3, 0), family.image_token_id)
    assert session.attention.shape == rows.shape
    assert (session.attention - rows).abs().max() <= TOLERANCE
    assert (session.attention[:, 0, 1:] - session.attention[:, 1, 1:]).abs().max() > 1e-4  # the beams differ


def test_rows_of_a_returned_beam() -> None:
    """``beam_indices`` says which running beam each token of a returned sequence came from."""
    family = FAMILIES["llava"]()
    inputs, options = single(family), {"num_beams": 4, "num_return_sequences": 2, "max_new_tokens": 8}
    with vea.capture(family.model, layers="all", queries="all") as session:
        out = generate(
            family.model, inputs, min_new_tokens=8, return_dict_in_generate=True, output_logits=True,
            output_scores=True, **options,
        )  # fmt: skip
    prompt = inputs["input_ids"].shape[1]
    assert (out.beam_indices != out.beam_indices[:, :1]).any()  # a beam changed its place
    for sequence, beams in zip(out.sequences, out.beam_indices, strict=True):
        followed = torch.stack([session.attention[:, beam, step] for step, beam in enumerate(beams.tolist())], 1)
        fed = dict(inputs) | {"input_ids": sequence[None], "attention_mask": torch.ones_like(sequence)[None]}
        with eager(family.model), torch.no_grad():
            weights = family.model(**fed, output_attentions=True).attentions
        image = inputs["input_ids"][0] == family.image_token_id
        truth = torch.stack([w[0].mean(0)[prompt - 1 : -1, :prompt][:, image] for w in weights])
        assert (followed - truth).abs().max() <= 5e-6


@several
def test_samples_are_rows(name: str) -> None:
    family = FAMILIES[name]()
    inputs = padded(family)
    options = {"do_sample": True, "num_return_sequences": 2, "return_dict_in_generate": True}
    torch.manual_seed(3)
    with vea.capture(family.model, layers="all", queries="all") as session:
        out = generate(family.model, inputs, **options)
    torch.manual_seed(3)
    with eager(family.model):
        expected = generate(family.model, inputs, output_attentions=True, **options)
    assert torch.equal(out.sequences, expected.sequences)
    rows = step_rows(expected, inputs["input_ids"].repeat_interleave(2, 0), family.image_token_id)
    assert (session.attention - rows).abs().max() <= TOLERANCE


# --- prefixes and chunks --------------------------------------------------------------------------------------------


def with_cache(family: TinyFamily, inputs: Any, tokens: int) -> tuple[Any, Any]:
    """The first ``tokens`` of a prompt in a cache, and what is left to feed."""
    cache = DynamicCache(config=family.model.config.get_text_config())
    by_token = ("input_ids", "attention_mask", "mm_token_type_ids")
    prefix = {key: value[:, :tokens] if key in by_token else value for key, value in inputs.items()}
    with torch.no_grad():
        family.model(**prefix, past_key_values=cache)
    return cache, {key: inputs[key] for key in ("input_ids", "attention_mask")}


@pytest.mark.parametrize("left", [7, 1])
@pytest.mark.parametrize("name", ["llava", "internvl"])
def test_a_cached_prefix(name: str, left: int) -> None:
    """The picture was fed before the session; generate() gets the whole prompt and feeds what is left of it."""
    family = FAMILIES[name]()
    inputs = single(family)
    expected, sequences = eager_rows(family, inputs)
    cache, rest = with_cache(family, inputs, inputs["input_ids"].shape[1] - left)
    for _ in range(2):  # each answer from a copy of the cache
        with vea.capture(family.model, layers="all", queries="all", top_k=3) as session:
            out = generate(family.model, rest, past_key_values=copy.deepcopy(cache))
        assert torch.equal(out, sequences)
        assert session.attention.shape == expected.shape
        assert (session.attention - expected).abs().max() <= 5e-6


@pytest.mark.parametrize("left", [7, 1])
def test_a_suffix_alone(left: int) -> None:
    family = FAMILIES["llava"]()
    inputs = single(family)
    expected, _ = eager_rows(family, inputs)
    cache, rest = with_cache(family, inputs, inputs["input_ids"].shape[1] - left)
    rest["input_ids"] = rest["input_ids"][:, -left:]
    with vea.capture(family.model, layers="all", queries="all") as session:
        generate(family.model, rest, past_key_values=copy.deepcopy(cache))
    with pytest.raises(ImageTokenError, match="outside this session"):
        _ = session.attention
    image = inputs["input_ids"] == family.image_token_id
    with vea.capture(family.model, layers="all", queries="all", image_positions=image) as session:
        generate(family.model, rest, past_key_values=copy.deepcopy(cache))
    assert (session.attention - expected).abs().max() <= 5e-6
    with vea.capture(family.model, layers="all", queries="all") as session:  # the picture is fed inside
        cache, _ = with_cache(family, inputs, inputs["input_ids"].shape[1] - left)
        generate(family.model, rest, past_key_values=cache)
    assert (session.attention - expected).abs().max() <= 5e-6


def test_a_suffix_of_another_prompt_does_not_inherit_its_picture() -> None:
    family = FAMILIES["llava"]()
    inputs, words = single(family), torch.arange(10, 30)[None]
    cache = DynamicCache(config=family.model.config.get_text_config())
    with torch.no_grad():
        family.model(input_ids=words, past_key_values=cache)
    with vea.capture(family.model, layers="all") as session:
        generate(family.model, inputs)
        with torch.no_grad():
            family.model(input_ids=words[:, :5], past_key_values=cache)
    with pytest.raises(ImageTokenError, match="outside this session"):
        _ = session.attention


@pytest.mark.parametrize("cache_type", ["dynamic", "static"])
def test_a_second_turn(cache_type: str) -> None:
    """The picture stands in the first turn; the second one feeds its own words only."""
    family = FAMILIES["llava"]()
    inputs = single(family)
    config = family.model.config.get_text_config()
    words = torch.arange(40, 52)[None]

    def turns(**options: Any) -> tuple[Any, Tensor]:
        cache = (
            DynamicCache(config=config) if cache_type == "dynamic" else StaticCache(config=config, max_cache_len=256)
        )
        first = generate(family.model, inputs, past_key_values=cache)
        ids = torch.cat([first, words], 1)
        fed = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        return generate(family.model, fed, past_key_values=cache, return_dict_in_generate=True, **options), ids

    with eager(family.model):
        expected, ids = turns(output_attentions=True)
    with vea.capture(family.model, layers="all", queries="all") as session:
        out, _ = turns()
    assert torch.equal(out.sequences, expected.sequences)
    image = ids[0] == family.image_token_id
    truth = torch.stack(
        [
            torch.stack([w[:, :, -1, : ids.shape[1]].mean(1)[:, image] for w in layers])
            for layers in expected.attentions
        ],
        2,
    )
    assert session.attention.shape == truth.shape
    assert (session.attention - truth).abs().max() <= TOLERANCE


@pytest.mark.skipif(
    transformers.__version__.startswith("5.16."), reason="chunks of Transformers 5.16 start from an empty cache"
)
@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("chunk", [1, 4, 5, 64])
def test_chunks_of_a_prompt(chunk: int, given: bool) -> None:
    """Nine tokens in chunks of four end with a chunk of one, which is the last prompt token all the same."""
    family = FAMILIES["llava"]()
    inputs = single(family)
    expected, sequences = eager_rows(family, inputs)
    cache, rest = with_cache(family, inputs, inputs["input_ids"].shape[1] - 9)
    positions = inputs["input_ids"] == family.image_token_id if given else None
    with vea.capture(family.model, layers="all", queries="all", image_positions=positions) as session:
        out = generate(family.model, rest, past_key_values=cache, prefill_chunk_size=chunk)
    assert torch.equal(out, sequences)
    assert session.attention.shape == expected.shape
    assert (session.attention - expected).abs().max() <= 5e-6
    assert session.stats.rapt_image.isfinite().all()


@pytest.mark.parametrize("given", [False, True])
def test_chunks_that_cut_through_the_picture(given: bool) -> None:
    """Without its pixels a picture's placeholders are tokens like others, so that chunks may cut between them."""
    family = FAMILIES["llava"]()
    inputs = {key: single(family)[key] for key in ("input_ids", "attention_mask")}
    expected, sequences = eager_rows(family, inputs)
    tokens = inputs["input_ids"].shape[1]
    chunk = next(size for size in range(11, tokens) if tokens % size == 1)
    positions = inputs["input_ids"] == family.image_token_id if given else None
    cache = DynamicCache(config=family.model.config.get_text_config())
    with vea.capture(family.model, layers="all", queries="all", image_positions=positions) as session:
        out = generate(family.model, inputs, past_key_values=cache, prefill_chunk_size=chunk)
    assert torch.equal(out, sequences)
    assert session.attention.shape == expected.shape
    assert (session.attention - expected).abs().max() <= 5e-6
    with (
        vea.capture(family.model, layers="all", image_positions=[tokens]),
        pytest.raises(InvalidInputError, match=f"the prompt has {tokens} tokens"),
    ):
        generate(family.model, inputs, past_key_values=DynamicCache(), prefill_chunk_size=chunk)


# --- which model, which thread, which session -----------------------------------------------------------------------


@several
def test_the_inner_model(name: str) -> None:
    family = FAMILIES[name]()
    inputs, inner = padded(family), family.model.model
    expected, _ = eager_rows(family, inputs)
    with vea.capture(inner, layers="all", queries="all") as session:
        generate(family.model, inputs)
    assert (session.attention - expected).abs().max() <= TOLERANCE
    with vea.capture(inner, layers="all") as called, torch.no_grad():
        inner(**inputs)
    with vea.capture(family.model, layers="all") as outer, torch.no_grad():
        inner(**inputs)
    for session in (called, outer):
        assert (session.attention - expected[:, :, :1]).abs().max() <= TOLERANCE


def test_two_threads_generate_on_one_model() -> None:
    family = FAMILIES["llava"]()
    prompts = {"first": single(family), "second": family.inputs(picture(8, 60, 110), "another, longer question")}
    expected = {key: eager_rows(family, inputs)[0] for key, inputs in prompts.items()}
    found: dict[str, list[Tensor]] = {key: [] for key in prompts}
    barrier = threading.Barrier(2)

    def run(key: str) -> None:
        barrier.wait()
        for _ in range(4):
            with vea.capture(family.model, layers="all", queries="all") as session:
                generate(family.model, prompts[key])
            found[key].append(session.attention)

    threads = [threading.Thread(target=run, args=(key,)) for key in prompts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for key, rows in found.items():
        assert len(rows) == 4
        assert all((row - expected[key]).abs().max() <= TOLERANCE for row in rows)


@several
def test_sessions_in_sessions(name: str) -> None:
    family = FAMILIES[name]()
    inputs = padded(family)
    expected, _ = eager_rows(family, inputs)
    model = family.model
    with (
        vea.capture(model, layers=[0, 2], queries="all") as outer,
        vea.capture(model, layers=[2, 3], queries="generated", top_k=2) as middle,
        vea.capture(model.model, layers=[1], queries="last") as inner,
    ):
        generate(model, inputs)
    assert (outer.attention - expected[[0, 2]]).abs().max() <= TOLERANCE
    assert (middle.attention - expected[[2, 3]][:, :, 1:]).abs().max() <= TOLERANCE
    assert (inner.attention - expected[[1]][:, :, :1]).abs().max() <= TOLERANCE
    assert torch.equal(middle.topk.any(-1), middle.attention.any(-1))  # nothing to mark where a window left the picture


@several
def test_sessions_that_close_in_another_order(name: str) -> None:
    """The one that was opened first is closed first; the other goes on reading."""
    family = FAMILIES[name]()
    inputs = single(family)
    expected, _ = eager_rows(family, inputs)
    first = vea.capture(family.model, layers=[0], queries="all").__enter__()
    second = vea.capture(family.model, layers=[1], queries="all").__enter__()
    try:
        first.__exit__(None, None, None)
        generate(family.model, inputs)
    finally:
        second.__exit__(None, None, None)
    assert (second.attention - expected[1:2]).abs().max() <= TOLERANCE
    with pytest.raises(CaptureError, match="nothing was captured"):
        _ = first.attention


@several
@pytest.mark.parametrize("split", [2, 3, 5])
def test_later_chunks_under_the_mask_of_the_whole(name: str, split: int) -> None:
    """Chunks by hand, padding included: the last one has several tokens, and a mask as long as all before it."""
    if name == "gemma3" and transformers.__version__.startswith("5.16."):
        pytest.skip("Transformers 5.16 raises RuntimeError by itself for a later chunk in a cache that slides")
    family = FAMILIES[name]()
    inputs = padded(family)
    expected, _ = eager_rows(family, inputs)
    count, mask = inputs["input_ids"].shape[1], inputs["attention_mask"]
    parts = {k: v for k, v in inputs.items() if k not in ("input_ids", "attention_mask")}
    of_tokens = {k: v for k, v in parts.items() if v.shape[:2] == mask.shape}
    positions = {"position_ids": (mask.cumsum(1) - 1).clamp(min=0)} if name != "qwen2_5_vl" else {}
    cache = DynamicCache(config=family.model.config)
    with vea.capture(family.model, layers="all") as session, torch.no_grad():
        for start, stop in ((0, count - split), (count - split, count)):
            cut = {k: v[:, start:stop] for k, v in (of_tokens | positions).items()}
            shown = {k: v for k, v in parts.items() if k not in of_tokens} if start == 0 else {}
            if name == "qwen2_5_vl" and start:
                cut = {"position_ids": rope_positions(family, inputs)[:, :, start:stop]}
            ids = inputs["input_ids"][:, start:stop]
            family.model(
                input_ids=ids, attention_mask=mask[:, :stop], past_key_values=cache, use_cache=True, **shown, **cut
            )
    assert (session.attention - expected[:, :, :1]).abs().max() <= TOLERANCE


def test_a_picture_in_a_later_chunk() -> None:
    """Two pictures, each in the chunk that brings its pixels: the second one's keys lie behind those in the cache."""
    family = FAMILIES["llava"]()
    inputs = family.inputs([[picture(1), picture(2)]], ["which one?"])
    expected, _ = eager_rows(family, inputs)
    places = (inputs["input_ids"][0] == family.image_token_id).nonzero().flatten()
    split = int(places[len(places) // 2])
    cache = DynamicCache(config=family.model.config)
    with vea.capture(family.model, layers="all") as session, torch.no_grad():
        for number, part in enumerate((slice(0, split), slice(split, None))):
            family.model(
                input_ids=inputs["input_ids"][:, part],
                pixel_values=inputs["pixel_values"][number : number + 1],
                past_key_values=cache,
                use_cache=True,
            )
    assert session.image_index[0].tolist() == places.tolist()
    assert (session.attention - expected[:, :, :1]).abs().max() <= TOLERANCE


def rope_positions(family: TinyFamily, inputs: Any) -> Tensor:
    """Qwen2.5-VL's positions in time, height and width, [3, B, tokens]."""
    names = ("input_ids", "mm_token_type_ids", "image_grid_thw", "attention_mask")
    found: Tensor = family.model.model.get_rope_index(**{name: inputs[name] for name in names})[0]
    return found


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl"])
@pytest.mark.parametrize("by_hand", [False, True])
def test_a_static_cache_that_is_used_again(name: str, by_hand: bool) -> None:
    family = FAMILIES[name]()
    prompts = [single(family), family.inputs(picture(5), "another, longer question?")]
    expected = [eager_rows(family, inputs)[0] for inputs in prompts]
    cache = StaticCache(config=family.model.config.get_text_config(), max_cache_len=192)
    with vea.capture(family.model, layers="all", queries="all") as session, torch.no_grad():
        for inputs, rows in zip(prompts, expected, strict=True):
            cache.reset()
            if by_hand:
                family.model(**inputs, past_key_values=cache, use_cache=True)
                rows = rows[:, :, :1]
            else:
                generate(family.model, inputs, past_key_values=cache)
            assert session.attention.shape == rows.shape
            assert (session.attention - rows).abs().max() <= TOLERANCE


@several
def test_statistics_of_a_second_prompt(name: str) -> None:
    family = FAMILIES[name]()
    prompts = [padded(family), single(family)]
    rows = [eager_rows(family, inputs)[0] for inputs in prompts]
    with vea.capture(family.model, layers="all", queries="all") as session:
        for inputs, expected in zip(prompts, rows, strict=True):
            generate(family.model, inputs)
            assert session.stats.image_mass.shape == expected.shape[:3]
            assert (session.stats.image_mass - expected.sum(-1)).abs().max() <= 1e-5
            share = expected / expected.sum(-1, keepdim=True)
            entropy = torch.special.entr(share).sum(-1)  # NaN where a sliding window has left the picture behind
            assert torch.allclose(session.stats.entropy, entropy, atol=1e-4, equal_nan=True)


def test_an_inner_session_sees_its_own_prompts_only() -> None:
    family = FAMILIES["llava"]()
    first, second = single(family), family.inputs(picture(9), "another question")
    rows = [eager_rows(family, inputs)[0] for inputs in (first, second)]
    with vea.capture(family.model, layers="all", queries="all") as outer:
        with vea.capture(family.model, layers="all", queries="all") as inner:
            generate(family.model, first)
        generate(family.model, second)
    assert (inner.attention - rows[0]).abs().max() <= TOLERANCE
    assert (outer.attention - rows[1]).abs().max() <= TOLERANCE


def test_a_session_opens_again_but_not_twice_at_once() -> None:
    family = FAMILIES["llava"]()
    first, second = single(family), family.inputs(picture(9), "another question")
    session = vea.capture(family.model, layers="all", queries="all")
    with session:
        generate(family.model, first)
        with pytest.raises(CaptureError, match="already open"):
            session.__enter__()
        generate(family.model, first)  # still open, still one session
    assert (session.attention - eager_rows(family, first)[0]).abs().max() <= TOLERANCE
    with session:
        generate(family.model, second)
    assert (session.attention - eager_rows(family, second)[0]).abs().max() <= TOLERANCE


# --- drafts and continuous batches ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["llava", "internvl"])
@pytest.mark.parametrize("drafts", ["lookup", "assistant"])
def test_drafted_tokens(name: str, drafts: str) -> None:
    """The drafted tokens follow the prompt in its own pass; the last prompt token is not the last one fed."""
    family = FAMILIES[name]()
    inputs = family.inputs(picture(0), "what: is a cat: in it")  # "t:" comes again at the end
    options = (
        {"prompt_lookup_num_tokens": 3} if drafts == "lookup" else {"assistant_model": copy.deepcopy(family.model)}
    )
    expected, _ = eager_rows(family, inputs)
    fed: list[int] = []
    hook = family.model.register_forward_pre_hook(
        lambda module, args, kwargs: fed.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    try:
        with vea.capture(family.model, layers="all") as session:
            generate(family.model, inputs, **options)
    finally:
        hook.remove()
    assert fed[0] > inputs["input_ids"].shape[1]  # drafted tokens came with the prompt
    assert (session.attention - expected[:, :, :1]).abs().max() <= TOLERANCE
    plain = vea.capture(family.model, layers="all")
    with plain:
        generate(family.model, inputs)
    assert (session.stats.rapt_text - plain.stats.rapt_text).abs().max() <= 1e-4
    with vea.capture(family.model, layers="all", queries="all"), pytest.raises(CaptureError, match='queries="last"'):
        generate(family.model, inputs, **options)


def test_a_paged_cache_is_refused() -> None:
    q = torch.randn(1, 2, 3, 4)
    with pytest.raises(CaptureError, match="generate_batch"):
        from_interface(torch.nn.Identity(), q, q, None, {"cache": object()}, "sdpa")


def test_a_padding_mask_of_more_tokens_than_keys_ends_with_them() -> None:
    """As flash attention gets it where a sliding cache has dropped the first keys."""
    query, key = torch.randn(2, 2, 1, 4), torch.randn(2, 2, 4, 4)
    padding = torch.tensor([[0, 0, 0, 1, 0, 1, 1], [1, 1, 1, 1, 1, 1, 0]])
    call = from_interface(torch.nn.Identity(), query, key, padding, {}, "flash_attention_2")
    assert call.mask is not None
    assert call.mask.squeeze().tolist() == [[True, False, True, True], [True, True, True, False]]
