"""Certainty in a record against the logits that Transformers' own generate() returns, in float64."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from families import FAMILIES
from monitoring import Kept, nothing_is_left  # noqa: F401
from test_capture import padded, picture, single
from torch import Tensor
from transformers import StoppingCriteria

import vea_sdk as vea
from vea_sdk.monitor.certainty import Chosen
from vea_sdk.monitor.sampling import sampled

names = pytest.mark.parametrize("name", FAMILIES)


def three(family: Any) -> Any:
    """A batch of prompts of three lengths, padded on the left."""
    inputs = family.inputs([[picture(i)] for i in range(3)], ["short", "a question of quite another length", "a third"])
    assert not inputs["attention_mask"][:, 0].all()
    return inputs


def truth(out: Any, prompt: int, ends: set[int]) -> list[tuple[float, int]]:
    """(Σ log softmax, tokens) of each sequence, up to and with its first end token."""
    found = []
    for row, sequence in enumerate(out.sequences[:, prompt:].tolist()):
        total, count = 0.0, 0
        for step, token in enumerate(sequence):
            total += float(out.logits[step][row].double().log_softmax(-1)[token])
            count += 1
            if token in ends:
                break
        found.append((total, count))
    return found


def run(model: Any, inputs: Any, options: dict[str, Any], **asked: bool) -> Any:
    torch.manual_seed(5)
    return model.generate(**inputs, **({"max_new_tokens": 6} | options), **asked)


def holds(family: Any, inputs: Any, sink: Kept, **options: Any) -> list[tuple[float, int]]:
    """The records against the truth, from a caller who asked for no logits and gets what he would without a monitor."""
    out = run(family.model, inputs, options, return_dict_in_generate=True, output_logits=True)
    ends = options.get("eos_token_id", family.model.generation_config.eos_token_id)
    want = truth(out, inputs["input_ids"].shape[1], set(ends if isinstance(ends, list) else [ends]))
    with vea.monitor(family.model, sample_rate=1.0, layers=[1], sinks=[sink]) as handle:
        answered = run(family.model, inputs, options)
        assert handle.flush()
    assert torch.equal(answered, out.sequences)
    step = len(want) // len(sink.records)
    for record, (total, count) in zip(sink.records, want[::step], strict=True):
        assert record.certainty == pytest.approx(math.exp(total), rel=3e-6, abs=1e-12)
        assert record.certainty_per_token == pytest.approx(math.exp(total / count), rel=1e-6)
    return want


@names
@pytest.mark.parametrize("sampling", [False, True])
def test_certainty_is_that_of_the_raw_logits(name: str, sampling: bool, sink: Kept) -> None:
    """Sampling changes the scores that tokens are drawn by, and the raw logits not."""
    family = FAMILIES[name]()
    drawn = {"do_sample": True, "temperature": 0.5, "top_k": 20, "repetition_penalty": 1.3}
    holds(family, three(family), sink, **(drawn if sampling else {"do_sample": False}))


@names
def test_rows_that_end_before_others(name: str, sink: Kept) -> None:
    """By the end token, which is counted; what follows it is padding, whether by a token of its own or by the same."""
    family = FAMILIES[name]()
    inputs = three(family)
    plain = run(family.model, inputs, {"do_sample": True, "eos_token_id": None})
    new = plain[:, inputs["input_ids"].shape[1] :].tolist()
    end = next(token for row in new for token in row[1:4] if any(token not in other for other in new))
    for pad in (0, end):
        want = holds(family, inputs, sink, do_sample=True, eos_token_id=end, pad_token_id=pad)
        assert len({count for _, count in want}) > 1
        sink.records.clear()


@pytest.mark.parametrize(
    "options",
    [
        {"num_return_sequences": 2, "do_sample": True},
        {"use_cache": False},
        {"max_new_tokens": 1},
        {"guidance_scale": 1.5},
        {"cache_implementation": "static", "disable_compile": True},
        {"stop_strings": None, "eos_token_id": [7, 9]},
    ],
    ids=lambda options: next(iter(options)),
)
def test_ways_to_generate_that_are_followed(options: dict[str, Any], sink: Kept) -> None:
    family = FAMILIES["llava"]()
    holds(family, three(family), sink, **options)


def test_text_alone_has_certainty_and_no_figures(sink: Kept) -> None:
    family = FAMILIES["qwen2_5_vl"]()
    ids = torch.arange(40, 60)[None]
    holds(family, {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, sink)
    assert sink.records[0].mean.image_mass is None


class AtFirst(StoppingCriteria):
    """Ends the first row of a batch after two tokens, by no end token."""

    def __init__(self, prompt: int) -> None:
        self.prompt = prompt

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        return torch.tensor([i == 0 and input_ids.shape[1] >= self.prompt + 2 for i in range(len(input_ids))])


def worst(model: Any, input_ids: Tensor, generation_config: Any, **options: Any) -> Tensor:
    """A loop of the caller's, which might choose by anything."""
    options.pop("logits_processor"), options.pop("stopping_criteria")
    out = model._prefill(input_ids, generation_config, options)
    return torch.cat([input_ids, out.logits[:, -1:].argmin(-1)], 1)


@pytest.mark.parametrize("way", ["beams", "lookup", "assistant", "stopped", "custom"])
def test_none_where_passes_do_not_tell(way: str, sink: Kept) -> None:
    family = FAMILIES["llava"]()
    inputs = single(family) if way in ("lookup", "assistant") else padded(family)
    options: dict[str, Any] = {
        "beams": {"num_beams": 2},
        "lookup": {"prompt_lookup_num_tokens": 2, "suppress_tokens": [family.image_token_id]},
        "assistant": {"assistant_model": copy.deepcopy(family.model)},
        "stopped": {"stopping_criteria": [AtFirst(inputs["input_ids"].shape[1])], "eos_token_id": 7, "pad_token_id": 0},
        "custom": {"custom_generate": worst},
    }[way]
    with vea.monitor(family.model, sample_rate=1.0, layers=[1], sinks=[sink]):
        run(family.model, inputs, options)
        if way == "stopped":  # alone, all of an answer is known whatever ends it
            run(family.model, single(family), options)
    *several, alone = sink.records
    assert all(one.certainty is None and one.certainty_per_token is None for one in several)
    assert (alone.certainty is not None) == (way == "stopped")


def test_none_outside_of_generate_and_where_it_fails(sink: Kept) -> None:
    family = FAMILIES["llava"]()
    inputs = single(family)

    class Raises(StoppingCriteria):
        def __call__(self, *_: Any, **__: Any) -> Any:
            raise RuntimeError("stop")

    with vea.monitor(family.model, sample_rate=1.0, layers=[1], sinks=[sink]) as handle:
        with torch.no_grad():
            cache = family.model(**inputs).past_key_values
            family.model(input_ids=torch.tensor([[5]]), past_key_values=cache)
        del cache
        with pytest.raises(RuntimeError, match="stop"):
            run(family.model, inputs, {"stopping_criteria": [Raises()]})
        assert handle.flush()
    assert [(one.finished, one.certainty) for one in sink.records] == [("ended", None), ("failed", None)]


@pytest.mark.parametrize("what", ["a pass unseen", "another token", "no logits"])
def test_none_where_the_passes_are_not_those_of_the_answer(
    what: str, sink: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a pass inside of a graph, or of a loop that returns other tokens than it fed."""
    family = FAMILIES["llava"]()
    add, passes = Chosen.add, iter(range(100))

    def altered(self: Chosen, ids: Tensor, output: Any) -> None:
        if next(passes) != 3:
            add(self, ids, output)
        elif what != "a pass unseen":
            add(self, ids + 1 if what == "another token" else ids, output if what == "another token" else None)

    monkeypatch.setattr(Chosen, "add", altered)
    with vea.monitor(family.model, sample_rate=1.0, layers=[1], sinks=[sink]):
        run(family.model, single(family), {})
        run(family.model, single(family), {})
    first, second = sink.records
    assert first.certainty is None
    assert second.certainty is not None
    assert first.mean == second.mean


def test_an_error_in_it_costs_the_certainty_alone(sink: Kept, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    family = FAMILIES["llava"]()
    plain = run(family.model, single(family), {})

    def fail(*_: Any) -> None:
        raise ValueError("broken")

    for name in ("add", "end", "certainty"):
        with monkeypatch.context() as patch, vea.monitor(family.model, sample_rate=1.0, layers=[1], sinks=[sink]) as h:
            patch.setattr(Chosen, name, fail)
            assert torch.equal(run(family.model, single(family), {}), plain)
            assert h.flush()
        assert "broken" in caplog.text
        caplog.clear()
    assert all(one.certainty is None and one.mean.image_mass is not None for one in sink.records)
    assert len(sink.records) == 3


def test_only_the_sampled_rows_and_what_the_caller_may_change(sink: Kept) -> None:
    """A caller may write into what he got before the record is made."""
    family = FAMILIES["llava"]()
    inputs = three(family)
    out = run(family.model, inputs, {}, return_dict_in_generate=True, output_logits=True)
    want = truth(out, inputs["input_ids"].shape[1], set())
    drawn = [name for name in map(str, range(20)) if sampled(name, 0.5)]
    left_out = next(name for name in map(str, range(20)) if name not in drawn)
    ids = [left_out, *drawn[:2]]
    with vea.monitor(family.model, sample_rate=0.5, layers=[1], sinks=[sink]) as handle:
        with handle.request(ids):
            run(family.model, inputs, {}).zero_()
        assert handle.flush()
    found = sink.by_name()
    assert list(found) == drawn[:2]
    for name, record in found.items():
        assert record.certainty_per_token == pytest.approx(math.exp(want[ids.index(name)][0] / 6), rel=1e-6)
