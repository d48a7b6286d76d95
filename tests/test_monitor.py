"""Records of a monitored model against eager attention, in every way that a model is run."""

from __future__ import annotations

import copy
import json
import pickle
import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from families import FAMILIES, TinyFamily
from monitoring import Kept, close, expected, hooks_of, moves, nothing_is_left  # noqa: F401
from test_capture import eager_rows, generate, padded, picture, single
from torch import Tensor, nn
from transformers import DynamicCache, StaticCache

import vea_sdk as vea
from vea_sdk.adapters import Adapter
from vea_sdk.errors import InvalidInputError, LayerError
from vea_sdk.monitor.prompt import UnreadPrompt
from vea_sdk.monitor.record import Record
from vea_sdk.monitor.sampling import sampled

names = pytest.mark.parametrize("name", FAMILIES)


# --- the record -----------------------------------------------------------------------------------------------------


@names
def test_a_record_says_what_eager_attention_says(name: str, sink: Kept) -> None:
    family = FAMILIES[name]()
    inputs = padded(family)
    rows, sequences = eager_rows(family, inputs)
    with vea.monitor(family.model, sample_rate=1.0, layers=[0, 1, 3], top_k=5, sinks=[sink]) as handle:
        with handle.request(["a", "b"]):
            assert torch.equal(generate(family.model, inputs), sequences)
        assert handle.flush()
    assert [record.request for record in sink.records] == ["a", "b"]
    assert sink.closed == 1
    for i, record in enumerate(sink.records):
        kept = inputs["input_ids"][i] == family.image_token_id
        truth = rows[[0, 1, 3], i][:, :, : int(kept.sum())]  # [layers, steps, image tokens]
        want = expected(truth[:, 0], record.prompt_tokens)
        assert record.prompt_tokens == int(inputs["attention_mask"][i].sum())
        assert record.image_tokens == int(kept.sum())
        assert record.layers == (0, 1, 3) == tuple(one.layer for one in record.per_layer)
        assert close(record.mean, want["mean"])
        assert all(close(one, each) for one, each in zip(record.per_layer, want["per_layer"], strict=True))
        assert record.agreement == pytest.approx(want["agreement"], abs=1e-5)
        assert [patch.token for patch in record.top_patches] == want["order"][:5]
        assert [patch.score for patch in record.top_patches] == pytest.approx(want["row"][want["order"][:5]], abs=2e-6)
        assert record.trace == moves(truth[:, 1:])
        assert (record.generated_tokens, record.nan, record.finished, record.unread) == (3, 0, "ended", None)
        assert record.content is None
        assert record.rows is None
        assert 0 < record.timings["monitor"] < record.timings["total"]
        assert Record.from_dict(json.loads(json.dumps(record.to_dict()))) == record


@names
def test_boxes_spikes_and_border(name: str, sink: Kept) -> None:
    """Against the evidence of the same picture, whose boxes and denoising are tested elsewhere."""
    family = FAMILIES[name]()
    shown = picture(3, 120, 60)
    inputs = family.inputs(shown, "what?")
    vlm = vea.wrap(family.model, family.processor, layers=[1, 2])
    adapter = vlm.adapter
    layout = adapter.layouts(inputs, [(60, 120)], family.processor)[0]
    with vea.capture(family.model, layers=[1, 2]) as session, torch.no_grad():
        family.model(**inputs)
    scores = session.attention[:, 0, 0].mean(0).numpy()
    evidence = vea.evidence.Evidence(shown, None, scores, layout, (1, 2), session.attention[:, 0, 0].numpy())
    options = {"sample_rate": 1.0, "layers": [1, 2], "top_k": 4, "processor": family.processor}
    with vea.monitor(family.model, sinks=[sink], **options) as handle, handle.request("a", image_sizes=[(60, 120)]):
        generate(family.model, inputs)
    (record,) = sink.records
    boxes = [patch.box for patch in record.top_patches if patch.box is not None]
    assert record.images == 1
    assert all(patch.image == 0 for patch in record.top_patches)
    assert np.allclose(boxes, evidence.top_patches(len(boxes)))
    grids = [scores[grid.token_index] for grid in layout.grids]
    assert record.spikes == sum(int((vea.evidence.denoise(grid) != grid).sum()) for grid in grids)
    edge = sum(float(grid.sum() - grid[1:-1, 1:-1].sum()) for grid in grids)
    assert record.border_share == pytest.approx(edge / scores.sum(), abs=1e-5)


def test_spikes_are_those_that_denoising_takes_out() -> None:
    from vea_sdk.adapters import ImageLayout, PatchGrid
    from vea_sdk.monitor.places import spikes

    generator = np.random.default_rng(0)
    for trial in range(30):
        rows, cols = generator.integers(1, 7, 2)
        grid = generator.random((rows, cols)).astype(np.float32) ** 6
        if trial % 5 == 0:
            grid[0, 0] = np.nan
        cells = PatchGrid((0, 0, 9, 9), generator.permutation(rows * cols).reshape(rows, cols))
        layout = ImageLayout((9, 9), (9, 9), (0, 0, 9, 9), int(rows * cols), (cells,))
        row = np.empty(rows * cols, np.float32)
        row[cells.token_index] = grid
        for lam in (1.5, 10.0):
            cleaned = vea.evidence.denoise(grid, lam)
            changed = (cleaned != grid) & ~(np.isnan(cleaned) & np.isnan(grid))
            assert int(spikes(torch.from_numpy(row), [layout], lam)) == changed.sum()


def test_several_pictures_and_several_requests(sink: Kept) -> None:
    """Boxes of the second request, whose two pictures come after the first one's."""
    family = FAMILIES["qwen2_5_vl"]()
    sizes = [[(40, 60)], [(60, 90), (90, 30)]]
    pictures = [[picture(i, w, h) for i, (h, w) in enumerate(row)] for row in sizes]
    inputs = family.inputs(pictures, ["one", "these two, then"])
    options = {"sample_rate": 1.0, "layers": [2], "processor": family.processor, "top_k": 200}
    with vea.monitor(family.model, sinks=[sink], **options) as handle, handle.request(["a", "b"], image_sizes=sizes):
        generate(family.model, inputs)
    a, b = sink.records
    assert (a.images, b.images) == (1, 2)
    assert {patch.image for patch in b.top_patches} == {0, 1}
    for record, row in ((a, sizes[0]), (b, sizes[1])):
        assert len(record.top_patches) == record.image_tokens
        for number, (height, width) in enumerate(row):
            boxes = [patch.box for patch in record.top_patches if patch.image == number]
            area = sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in boxes)  # type: ignore[misc]
            assert area == pytest.approx(height * width)


def test_wrong_picture_sizes_cost_the_boxes_only(family: TinyFamily, sink: Kept, caplog: Any) -> None:
    sizes = [(60, 120), (10, 10), (3, 3)]
    with vea.monitor(family.model, sample_rate=1.0, layers=[1], sinks=[sink]) as handle:
        with handle.request("a", image_sizes=sizes):
            generate(family.model, single(family))
        assert handle.flush()
    (record,) = sink.records
    assert record.mean.image_mass is not None
    assert record.top_patches[0].box is None
    assert (record.images, record.spikes) == (None, None)
    assert "no boxes" in caplog.text


@names
def test_prompts_that_are_not_read(name: str, sink: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU the host does not ask how many image tokens there are. The same here."""
    monkeypatch.setattr(UnreadPrompt, "waits", staticmethod(lambda ids: True))
    family = FAMILIES[name]()
    inputs = padded(family)
    rows, sequences = eager_rows(family, inputs)
    ids = torch.arange(40, 60)[None]
    with vea.monitor(family.model, sample_rate=1.0, layers="all", sinks=[sink]):
        assert torch.equal(generate(family.model, inputs), sequences)
        generate(family.model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    *records, text = sink.records
    for i, record in enumerate(records):
        truth = rows[:, i][:, :, : record.image_tokens]
        want = expected(truth[:, 0], record.prompt_tokens)
        assert record.image_tokens == int((inputs["input_ids"][i] == family.image_token_id).sum())
        assert close(record.mean, want["mean"])
        assert [patch.token for patch in record.top_patches] == want["order"][:16]
        assert record.trace == moves(truth[:, 1:])
    assert (text.unread, text.images, text.image_tokens, text.prompt_tokens) == (None, 0, 0, 20)


def test_rows_and_content_are_recorded_on_request_only(family: TinyFamily, sink: Kept) -> None:
    inputs = single(family)
    rows, sequences = eager_rows(family, inputs)
    options = {"sample_rate": 1.0, "layers": "all", "processor": family.processor, "rows": True, "content": True}
    with vea.monitor(family.model, sinks=[sink], **options):
        generate(family.model, inputs)
    (record,) = sink.records
    assert torch.tensor(record.rows).allclose(rows[:, 0, 0], atol=2e-6)
    assert record.content is not None
    assert record.content["prompt_ids"] == inputs["input_ids"][0].tolist()
    assert record.content["answer_ids"] == sequences[0, inputs["input_ids"].shape[1] :].tolist()
    assert "what is written here?" in record.content["prompt"]
    assert Record.from_dict(json.loads(json.dumps(record.to_dict()))) == record


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "gemma3"])
def test_a_prompt_without_a_picture_is_no_fault(name: str, sink: Kept) -> None:
    family = FAMILIES[name]()
    ids = torch.arange(40, 60)[None]
    with vea.monitor(family.model, sample_rate=1.0, layers=[1], sinks=[sink]) as handle:
        generate(family.model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)})
        assert handle.flush()
        assert handle.counters.unread == 0
    (record,) = sink.records
    assert record.unread is None
    assert (record.images, record.image_tokens, record.prompt_tokens) == (0, 0, 20)
    assert record.mean.image_mass is None
    assert record.generated_tokens == 3


def test_nan_is_counted_and_becomes_none(family: TinyFamily, sink: Kept) -> None:
    model = copy.deepcopy(family.model)
    with torch.no_grad():
        model.model.language_model.layers[2].self_attn.q_proj.weight[0, 0] = torch.nan
    with vea.monitor(model, sample_rate=1.0, layers=[1, 2], sinks=[sink]), torch.no_grad():
        generate(model, single(family))
    (record,) = sink.records
    assert record.nan == record.image_tokens
    assert record.per_layer[0].image_mass is not None
    assert record.per_layer[1].image_mass is None
    assert (record.mean.image_mass, record.agreement, record.top_patches) == (None, None, ())
    json.dumps(record.to_dict(), allow_nan=False)


# --- which requests -------------------------------------------------------------------------------------------------


def test_sampling_is_decided_by_the_id() -> None:
    ids = [f"request {i}" for i in range(20_000)]
    share = sum(sampled(one, 0.05) for one in ids) / len(ids)
    assert abs(share - 0.05) < 5 * (0.05 * 0.95 / len(ids)) ** 0.5  # five standard deviations
    assert all(sampled(one, 0.2) for one in ids if sampled(one, 0.05))
    assert all(sampled(one, 1.0) and not sampled(one, 0.0) for one in ids)


def test_only_the_sampled_rows_of_a_batch_are_recorded(family: TinyFamily, sink: Kept) -> None:
    count = 6
    inputs = family.inputs([[picture(i)] for i in range(count)], [f"question {'long' * i}" for i in range(count)])
    ids = [f"row {i}" for i in range(40) if sampled(f"row {i}", 0.5)][:3]
    others = [f"row {i}" for i in range(40) if not sampled(f"row {i}", 0.5)][:3]
    batch = [ids[0], others[0], ids[1], ids[2], others[1], others[2]]
    rows, sequences = eager_rows(family, inputs)
    for implementation in ("sdpa", "eager"):
        family.model.set_attn_implementation(implementation)
        try:
            with (
                vea.monitor(family.model, sample_rate=0.5, layers="all", sinks=[sink]) as handle,
                handle.request(batch),
            ):
                assert torch.equal(generate(family.model, inputs), sequences)
        finally:
            family.model.set_attn_implementation("sdpa")
        counted = handle.counters
        assert (counted.requests, counted.samples, counted.records) == (6, 3, 3)
    assert [record.request for record in sink.records] == ids * 2
    for record in sink.records:
        truth = rows[:, batch.index(record.request)]
        assert close(record.mean, expected(truth[:, 0], record.prompt_tokens)["mean"])
        assert record.trace == moves(truth[:, 1:])


def test_numbered_requests_are_sampled_in_their_share(family: TinyFamily, sink: Kept) -> None:
    inputs = single(family)
    with vea.monitor(family.model, sample_rate=0.3, layers=[0], sinks=[sink]) as handle, torch.no_grad():
        for _ in range(60):
            family.model(**inputs)
        assert handle.flush()
        counted = handle.counters
        assert counted.requests == 60
        assert 5 <= counted.samples <= 35
        handle.sample_rate = 0.0
        family.model(**inputs)
        assert handle.counters.samples == counted.samples
    assert handle.counters.records == counted.samples == len({record.request for record in sink.records})


def test_beams_are_one_request_each_prompt(family: TinyFamily, sink: Kept) -> None:
    inputs = padded(family)
    rows, _ = eager_rows(family, inputs)
    with vea.monitor(family.model, sample_rate=1.0, layers="all", sinks=[sink]) as handle, handle.request(["a", "b"]):
        family.model.generate(**inputs, num_beams=3, max_new_tokens=3, do_sample=False)
    assert [record.request for record in sink.records] == ["a", "b"]
    for i, record in enumerate(sink.records):
        assert close(record.mean, expected(rows[:, i, 0], record.prompt_tokens)["mean"])


def test_a_row_that_ends_early_counts_its_own_tokens_only(family: TinyFamily, sink: Kept) -> None:
    """The longest of the batch goes on, and the others are fed padding."""
    inputs = padded(family)
    _, sequences = eager_rows(family, inputs)
    start = inputs["input_ids"].shape[1]
    stop = int(sequences[0, start + 1])  # the second token of the first row ends it
    assert stop not in sequences[1, start:]
    rows, _ = eager_rows(family, inputs)
    with vea.monitor(family.model, sample_rate=1.0, layers="all", sinks=[sink]):
        family.model.generate(**inputs, max_new_tokens=4, do_sample=False, eos_token_id=stop, pad_token_id=0)
    first, second = sink.records
    assert (first.generated_tokens, second.generated_tokens) == (2, 3)  # fed back: the last is not
    assert first.trace == moves(rows[:, 0, 1:3])
    assert second.trace == moves(rows[:, 1, 1:])


# --- ways to run a model --------------------------------------------------------------------------------------------


def loop(model: Any, inputs: Any, cache: Any = None, steps: int = 4) -> Tensor:
    """Greedy decoding by hand; the cache is the model's own unless one is given."""
    given = {} if cache is None else {"past_key_values": cache}
    out = model(**inputs, use_cache=True, **given)
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    for _ in range(steps - 1):
        token = out.logits[:, -1:].argmax(-1)
        ids, mask = torch.cat([ids, token], 1), torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
        out = model(input_ids=token, attention_mask=mask, past_key_values=out.past_key_values, use_cache=True)
    return torch.cat([ids, out.logits[:, -1:].argmax(-1)], 1)


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("name", [name for name in FAMILIES if "qwen" not in name])  # it needs generate()'s positions
def test_a_loop_of_ones_own(name: str, given: bool, sink: Kept) -> None:
    family = FAMILIES[name]()
    inputs = single(family)
    rows, sequences = eager_rows(family, inputs)
    with vea.monitor(family.model, sample_rate=1.0, layers="all", sinks=[sink]) as handle, torch.no_grad():
        cache = DynamicCache(config=family.model.config.get_text_config()) if given else None
        assert torch.equal(loop(family.model, inputs, cache), sequences)
        del cache
        assert handle.flush()  # the cache is gone, and the request with it
        assert handle.counters.records == 1
        loop(family.model, inputs)
    assert len(sink.records) == 2
    for record in sink.records:
        assert close(record.mean, expected(rows[:, 0, 0], record.prompt_tokens)["mean"])
        assert record.generated_tokens == 3
        assert record.trace == moves(rows[:, 0, 1:])
        assert record.finished == "ended"


def test_loops_that_take_turns_in_one_thread(family: TinyFamily, sink: Kept) -> None:
    """As a server does that decodes several requests step by step."""
    prompts = [single(family), family.inputs(picture(5), "another, longer question")]
    truth = [eager_rows(family, inputs)[0] for inputs in prompts]
    with vea.monitor(family.model, sample_rate=1.0, layers="all", sinks=[sink]) as handle, torch.no_grad():
        outs = []
        for i, inputs in enumerate(prompts):
            with handle.request(str(i)):  # named when it begins, not ended by the context of the others
                outs.append(family.model(**inputs, use_cache=True))
        assert handle.flush()
    assert [record.request for record in sink.records] == ["0", "1"]
    for record, rows in zip(sink.records, truth, strict=True):
        assert close(record.mean, expected(rows[:, 0, 0], record.prompt_tokens)["mean"])
    sink.records.clear()
    with vea.monitor(family.model, sample_rate=1.0, layers="all", sinks=[sink]) as handle, torch.no_grad():
        outs = [family.model(**inputs, use_cache=True) for inputs in prompts]
        for _ in range(3):
            for i, out in enumerate(outs):
                token = out.logits[:, -1:].argmax(-1)
                outs[i] = family.model(input_ids=token, past_key_values=out.past_key_values, use_cache=True)
        del out
        outs.clear()
        assert handle.flush()
        assert handle.counters.records == 2
    for inputs, rows in zip(prompts, truth, strict=True):
        (record,) = (one for one in sink.records if one.prompt_tokens == inputs["input_ids"].shape[1])
        assert record.generated_tokens == 3
        assert record.trace == moves(rows[:, 0, 1:])


def test_plain_passes_without_a_cache(family: TinyFamily, sink: Kept) -> None:
    first, second = single(family), family.inputs(picture(9), "another question")
    rows = [eager_rows(family, inputs)[0] for inputs in (first, second)]
    with vea.monitor(family.model, sample_rate=1.0, layers="all", sinks=[sink]) as handle, torch.no_grad():
        family.model(**first, use_cache=False)
        family.model(**second, use_cache=False)
        assert handle.flush()
        assert handle.counters.records == 1  # ended by the next prompt
    assert [record.finished for record in sink.records] == ["ended", "cut"]
    for record, truth in zip(sink.records, rows, strict=True):
        assert close(record.mean, expected(truth[:, 0, 0], record.prompt_tokens)["mean"])
        assert record.trace is None


def test_generation_without_a_cache(family: TinyFamily, sink: Kept) -> None:
    inputs = single(family)
    rows, sequences = eager_rows(family, inputs)
    with vea.monitor(family.model, sample_rate=1.0, layers="all", sinks=[sink]), torch.no_grad():
        assert torch.equal(generate(family.model, inputs, use_cache=False), sequences)
        ids = inputs["input_ids"]
        for step in range(4):  # and the same by hand
            fed = {**inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
            token = family.model(**fed, use_cache=False).logits[:, -1:].argmax(-1)
            assert token == sequences[0, inputs["input_ids"].shape[1] + step]
            ids = torch.cat([ids, token], 1)
    assert len(sink.records) == 2
    for record in sink.records:
        assert close(record.mean, expected(rows[:, 0, 0], inputs["input_ids"].shape[1])["mean"])
        assert record.generated_tokens == 3


@pytest.mark.parametrize("options", [{"cache_implementation": "static"}, {"prefill_chunk_size": 30}])
def test_static_caches_and_chunks(family: TinyFamily, sink: Kept, options: dict[str, Any]) -> None:
    inputs = single(family)
    rows, sequences = eager_rows(family, inputs)
    if "prefill_chunk_size" in options:
        cache = DynamicCache(config=family.model.config.get_text_config())
        with torch.no_grad():
            family.model(
                **{k: v[:, :80] if k != "pixel_values" else v for k, v in inputs.items()}, past_key_values=cache
            )
        inputs = {key: inputs[key] for key in ("input_ids", "attention_mask")}
        options = options | {"past_key_values": cache, "prefill_chunk_size": 4}
    with vea.monitor(family.model, sample_rate=1.0, layers="all", sinks=[sink]):
        assert torch.equal(generate(family.model, inputs, **options), sequences)
    (record,) = sink.records
    assert close(record.mean, expected(rows[:, 0, 0], record.prompt_tokens)["mean"])
    assert record.generated_tokens == 3


def test_turns_on_one_cache_are_requests_of_their_own(family: TinyFamily, sink: Kept) -> None:
    inputs = single(family)
    words = torch.arange(40, 52)[None]
    config = family.model.config.get_text_config()
    for cache in (DynamicCache(config=config), StaticCache(config=config, max_cache_len=256)):
        with vea.monitor(family.model, sample_rate=1.0, layers="all", sinks=[sink]):
            first = generate(family.model, inputs, past_key_values=cache)
            ids = torch.cat([first, words], 1)
            with vea.capture(family.model, layers="all") as session:
                generate(
                    family.model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, past_key_values=cache
                )
        before, after = sink.records
        assert before.prompt_tokens == inputs["input_ids"].shape[1]
        assert after.prompt_tokens == ids.shape[1]
        assert after.mean.image_mass == pytest.approx(session.stats.image_mass.mean().item(), abs=1e-5)
        sink.records.clear()


def test_turns_of_a_loop(family: TinyFamily, sink: Kept) -> None:
    inputs = single(family)
    words = torch.arange(40, 52)[None]
    with vea.monitor(family.model, sample_rate=1.0, layers="all", sinks=[sink]) as handle, torch.no_grad():
        cache = DynamicCache(config=family.model.config.get_text_config())
        loop(family.model, inputs, cache)
        with vea.capture(
            family.model, layers="all", image_positions=inputs["input_ids"] == family.image_token_id
        ) as now:
            family.model(input_ids=words, past_key_values=cache)
        del cache
        assert handle.flush()
    first, second = sink.records
    assert (first.generated_tokens, second.generated_tokens) == (3, 0)
    assert second.mean.image_mass == pytest.approx(now.stats.image_mass.mean().item(), abs=1e-5)


@pytest.mark.parametrize("drafts", ["lookup", "assistant", "self"])
def test_drafted_tokens(family: TinyFamily, sink: Kept, drafts: str) -> None:
    inputs = family.inputs(picture(0), "what: is a cat: in it")
    rows, sequences = eager_rows(family, inputs)
    options = {
        "lookup": {"prompt_lookup_num_tokens": 3},
        "assistant": {"assistant_model": copy.deepcopy(family.model)},
        "self": {"assistant_model": family.model},
    }[drafts]
    with vea.monitor(family.model, sample_rate=1.0, layers="all", sinks=[sink]) as handle:
        assert torch.equal(generate(family.model, inputs, **options), sequences)
        assert handle.flush()
        assert handle.counters.requests == 1
    (record,) = sink.records
    assert record.unread is None
    assert close(record.mean, expected(rows[:, 0, 0], record.prompt_tokens)["mean"])
    assert record.trace is None


def test_threads_share_a_model(family: TinyFamily, sink: Kept) -> None:
    prompts = {str(i): family.inputs(picture(i), "why" * (i + 1)) for i in range(4)}
    truth = {key: eager_rows(family, inputs) for key, inputs in prompts.items()}

    def run(key: str) -> None:
        for turn in range(5):
            with handle.request(f"{key} {turn}"):
                assert torch.equal(generate(family.model, prompts[key]), truth[key][1])

    with vea.monitor(family.model, sample_rate=1.0, layers="all", sinks=[sink]) as handle:
        threads = [threading.Thread(target=run, args=(key,)) for key in prompts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert handle.flush()
        assert handle.counters.records == 20
    assert len(sink.by_name()) == 20
    for record in sink.records:
        rows = truth[record.request[0]][0]
        assert close(record.mean, expected(rows[:, 0, 0], record.prompt_tokens)["mean"])
        assert record.generated_tokens == 3


# --- other monitors, sessions, copies -------------------------------------------------------------------------------


def test_two_monitors_and_a_session_at_once(family: TinyFamily, sink: Kept) -> None:
    inputs = single(family)
    rows, sequences = eager_rows(family, inputs)
    other = Kept()
    with (
        vea.monitor(family.model, sample_rate=1.0, layers=[0, 2], sinks=[sink]) as handle,
        vea.monitor(family.model, sample_rate=1.0, layers="all", sinks=[other]),
        vea.capture(family.model, layers="all", queries="all") as session,
        handle.request("both"),
    ):
        assert torch.equal(generate(family.model, inputs), sequences)
    assert (session.attention - rows).abs().max() <= 2e-6
    for kept, layers in ((sink, [0, 2]), (other, [0, 1, 2, 3])):
        (record,) = kept.records
        assert record.request == "both"
        assert close(record.mean, expected(rows[layers, 0, 0], record.prompt_tokens)["mean"])


def test_a_pass_that_a_session_stops_early_is_no_failure(family: TinyFamily, sink: Kept) -> None:
    vlm = vea.wrap(family.model, family.processor, layers=[1])
    alone = vlm.attend(picture(0), "what?").scores
    with vea.monitor(family.model, sample_rate=1.0, layers="all", sinks=[sink]):
        assert (vlm.attend(picture(0), "what?").scores == alone).all()
    (record,) = sink.records
    assert record.finished == "cut"  # by close(): nothing said that the request was over
    assert record.layers == (0, 1)  # no further
    assert record.mean.image_mass is not None


def test_copies_and_pickles_of_a_monitored_model_are_not_monitored(family: TinyFamily, sink: Kept) -> None:
    inputs = single(family)
    with vea.monitor(family.model, sample_rate=1.0, layers="all", sinks=[sink]) as handle:
        generate(copy.deepcopy(family.model), inputs)
        assert handle.counters.requests == 0
        hooks = hooks_of(family.model)
        assert hooks
        for hook in hooks:
            assert pickle.loads(pickle.dumps(hook))(family.model, (), {}) is None


def test_a_compiled_model_runs_past_the_monitor(family: TinyFamily, sink: Kept) -> None:
    """The compiler finds nothing of it; what is not compiled is monitored."""
    inputs = single(family)
    text = family.model.model.language_model
    embeds = family.model.get_input_embeddings()(inputs["input_ids"]).detach()
    with torch.no_grad():
        alone = text(inputs_embeds=embeds, use_cache=False).last_hidden_state
        with vea.monitor(family.model, sample_rate=1.0, layers="all", sinks=[sink]) as handle:
            compiled = torch.compile(text, backend="eager", fullgraph=True)
            assert torch.equal(compiled(inputs_embeds=embeds, use_cache=False).last_hidden_state, alone)
            assert handle.counters.requests == 0
            generate(family.model, inputs)
    torch.compiler.reset()
    (record,) = sink.records
    assert record.mean.image_mass is not None


def test_what_cannot_be_is_refused(family: TinyFamily, sink: Kept) -> None:
    for options in (
        {"sample_rate": 1.5},
        {"sample_rate": float("nan")},
        {"top_k": -1},
        {"max_inflight": 0},
        {"max_image_tokens": 0},
        {"idle_timeout": 0},
        {"sinks": [print]},
        {"sinks": [Kept]},
    ):
        with pytest.raises(InvalidInputError, match=next(iter(options))):
            vea.monitor(family.model, **({"layers": [0]} | options))  # type: ignore[arg-type]
    with pytest.raises(LayerError):
        vea.monitor(family.model, layers=[99])
    with vea.monitor(family.model, layers=[0]) as handle:
        for ids, sizes in (([], None), ([1], None), ("a", [3]), (["a", "b"], [[(3, 3)]]), ("a", [(0, 3)])):
            with pytest.raises(ValueError, match=r"request ids|image_sizes"):
                handle.request(ids, image_sizes=sizes)  # type: ignore[arg-type]
        with pytest.raises(InvalidInputError, match="sample_rate"):
            handle.sample_rate = 2.0


# --- models outside Transformers, with caches of their own kinds ------------------------------------------------------


class Cached(nn.Module):
    """Two layers of attention over ids; token 9 is the picture's. The cache is a dictionary or a list that it fills."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.config = SimpleNamespace(model_type="own", image_token_id=9)
        self.embedding = nn.Embedding(20, 32)
        self.layers = nn.ModuleList(CachedLayer() for _ in range(2))

    def forward(self, input_ids: Tensor, cache: Any = None) -> Tensor:
        x = self.embedding(input_ids)
        if isinstance(cache, list) and not cache:
            cache += [{} for _ in self.layers]
        for number, layer in enumerate(self.layers):
            if isinstance(cache, dict):
                cache.setdefault(number, {})
            x = layer(x, None if cache is None else cache[number])
        return x @ self.embedding.weight.mT

    def answer(self, ids: Tensor, cache: Any) -> None:
        with torch.no_grad():
            fed = ids
            for _ in range(4):
                last = self(fed, cache=cache)[:, -1:].argmax(-1)
                ids = torch.cat([ids, last], 1)
                fed = ids if cache is None else last


class CachedLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = CachedAttention()

    def forward(self, x: Tensor, cache: Any) -> Tensor:
        return x + self.attention(x, cache)


class CachedAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(32, 32) for _ in range(3))

    def forward(self, x: Tensor, cache: Any) -> Tensor:
        q, k, v = (part(x).unflatten(-1, (4, 8)).transpose(1, 2) for part in (self.q, self.k, self.v))
        if cache is not None:
            k = cache["k"] = torch.cat([cache["k"], k], 2) if cache else k
            v = cache["v"] = torch.cat([cache["v"], v], 2) if "v" in cache else v
        seen = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril(k.shape[2] - q.shape[2])
        return nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=seen).transpose(1, 2).flatten(2)


@pytest.mark.parametrize("make", [lambda: None, dict, list])
def test_a_cache_without_weak_references(make: Any, sink: Kept, caplog: pytest.LogCaptureFixture) -> None:
    """Three requests, one after the other, with caches that Python may put where the last one lay."""
    model = Cached().eval()
    prompts = [torch.tensor([[1, 9, 9, 9, 2, n]]) for n in (3, 4, 5)]
    with vea.monitor(model, sample_rate=1.0, layers="all", sinks=[sink], adapter=Adapter) as handle:
        for ids in prompts:
            model.answer(ids, make())
        assert handle.flush()
    assert not caplog.records
    assert len(sink.records) == 3
    for record, ids in zip(sink.records, prompts, strict=True):
        x, masses = model.embedding(ids).double(), []
        for layer in model.double().layers:
            attention = layer.attention
            q, k = (part(x).unflatten(-1, (4, 8)).transpose(1, 2) for part in (attention.q, attention.k))
            masses.append(torch.softmax((q[:, :, -1:] @ k.mT) / 8**0.5, -1)[..., 1:4].sum(-1).mean())
            x = layer(x, None)
        model.float()
        assert record.unread is None
        assert record.mean.image_mass == pytest.approx(float(torch.stack(masses).mean()), abs=1e-6)
        assert (record.prompt_tokens, record.generated_tokens) == (6, 3)
