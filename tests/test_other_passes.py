"""The same model runs for something else meanwhile: the rows are those of the generation that was asked for."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from families import FAMILIES, TinyFamily
from monitoring import Kept
from test_capture import TOLERANCE, picture
from torch import Tensor
from transformers import DynamicCache, LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

import vea_sdk as vea

NEW = 4
several = pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "gemma3"])
Options = Callable[[TinyFamily], dict[str, Any]]


def asked(family: TinyFamily) -> Any:
    return family.inputs(picture(0), "what is it?")


def spoiled(family: TinyFamily) -> Any:
    return family.inputs(picture(9), "what is it?")


class Contrast(LogitsProcessor):
    """Contrastive decoding: the same tokens after a spoiled picture, on a cache of its own, or on none."""

    def __init__(self, family: TinyFamily, cached: bool) -> None:
        self.model, self.fed, self.cached = family.model, dict(spoiled(family)), cached
        self.cache = DynamicCache(config=family.model.config) if cached else None
        self.started = False

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        fed = dict(self.fed)
        if self.started:
            last = ids[:, -1:]
            for name, value in (("input_ids", last), ("attention_mask", last * 0 + 1), ("token_type_ids", last * 0)):
                self.fed |= {name: torch.cat([self.fed[name], value], 1)} if name in self.fed else {}
            if "mm_token_type_ids" in self.fed:
                self.fed["mm_token_type_ids"] = torch.cat([self.fed["mm_token_type_ids"], last * 0], 1)
            fed = dict(self.fed)
            if self.cached:
                fed = {"input_ids": last, "attention_mask": self.fed["attention_mask"]}
        self.started = True
        with torch.no_grad():
            out = self.model(**fed, past_key_values=self.cache, use_cache=self.cached)
        return 2 * scores - out.logits[:, -1]


class Judge(StoppingCriteria):
    """Asks the model itself about the answer so far, and never stops it."""

    def __init__(self, family: TinyFamily, generates: bool) -> None:
        self.family, self.generates = family, generates

    def __call__(self, ids: Tensor, scores: Any, **_: Any) -> Tensor:
        inputs = spoiled(self.family)
        with torch.no_grad():
            if self.generates:
                self.family.model.generate(**inputs, max_new_tokens=2, do_sample=False)
            else:
                self.family.model(**inputs)
        return torch.zeros(len(ids), dtype=torch.bool)


def contrast(cached: bool) -> Options:
    return lambda family: {"logits_processor": LogitsProcessorList([Contrast(family, cached)])}


def judge(generates: bool) -> Options:
    return lambda family: {"stopping_criteria": StoppingCriteriaList([Judge(family, generates)])}


WAYS: dict[str, Options] = {
    "contrast on a cache of its own": contrast(True),
    "contrast without a cache": contrast(False),
    "guidance": lambda family: {"guidance_scale": 1.5},
    "a judge": judge(False),
    "a judge that generates": judge(True),
    "no cache at all, and guidance": lambda family: {"guidance_scale": 1.5, "use_cache": False},
    "no cache at all, and a judge": lambda family: judge(True)(family) | {"use_cache": False},
    "a static cache, and a judge": lambda family: judge(True)(family) | {"cache_implementation": "static"},
}


def generate(family: TinyFamily, way: str) -> Tensor:
    options = {"max_new_tokens": NEW, "min_new_tokens": NEW, "do_sample": False}
    ids: Tensor = family.model.generate(**asked(family), **options, **WAYS[way](family))
    return ids


def truth(family: TinyFamily, ids: Tensor) -> Tensor:
    """Eager weights over the sequence that was generated, of the last prompt token and all that were fed back."""
    fed = dict(asked(family))
    prompt = fed["input_ids"].shape[1]
    more = ids.shape[1] - 1 - prompt
    for name in ("token_type_ids", "mm_token_type_ids"):
        if name in fed:
            fed[name] = torch.cat([fed[name], fed[name].new_zeros(1, more)], 1)
    fed |= {"input_ids": ids[:, :-1], "attention_mask": torch.ones_like(ids[:, :-1])}
    model = copy.deepcopy(family.model)
    model.set_attn_implementation("eager")
    with torch.no_grad():
        weights = model(**fed, output_attentions=True, use_cache=False).attentions
    at = (ids[0] == family.image_token_id).nonzero().flatten()
    return torch.stack([layer.mean(1)[:, prompt - 1 :] for layer in weights])[..., at]


@several
@pytest.mark.parametrize("way", WAYS)
def test_a_session_follows_what_was_asked(name: str, way: str) -> None:
    family = FAMILIES[name]()
    if name == "qwen2_5_vl" and ("guidance" in way or "its own" in way):
        pytest.skip("Qwen2.5-VL needs positions of the picture at each step, which only its own generate() gives")
    expected = truth(family, generate(family, way))
    for queries, rows in (("last", expected[:, :, :1]), ("all", expected), ("generated", expected[:, :, 1:])):
        with vea.capture(family.model, layers="all", queries=queries) as session:  # type: ignore[arg-type]
            generate(family, way)
        assert session.attention.shape == rows.shape
        assert (session.attention - rows).abs().max() <= TOLERANCE


@pytest.mark.parametrize("way", WAYS)
def test_a_monitor_follows_what_was_asked(way: str, sink: Kept) -> None:
    family = FAMILIES["llava"]()
    ids = generate(family, way)
    expected = truth(family, ids)
    with vea.monitor(family.model, sample_rate=1.0, layers="all", sinks=[sink]) as handle:
        generate(family, way)
        assert handle.flush()
    own = [record for record in sink.records if record.generated_tokens == NEW - 1]
    nested = NEW if ("judge" in way and "generates" in way) or (way.endswith("a judge") and way != "a judge") else 0
    assert len(own) == 1
    assert len(sink.records) == 1 + nested  # what asks by a generate() of its own is a request of its own
    assert own[0].unread is None
    assert own[0].mean.image_mass == pytest.approx(float(expected[:, 0, 0].sum(-1).mean()), abs=1e-5)


@several
def test_a_model_that_drafts_for_itself(name: str) -> None:
    family = FAMILIES[name]()
    options = {"max_new_tokens": NEW, "min_new_tokens": NEW, "do_sample": False}
    plain = family.model.generate(**asked(family), **options)
    with vea.capture(family.model, layers="all") as session:
        ids = family.model.generate(**asked(family), **options, assistant_model=family.model)
    assert torch.equal(ids, plain)
    assert (session.attention - truth(family, ids)[:, :, :1]).abs().max() <= TOLERANCE


def test_a_session_opened_by_a_judge_is_the_judges() -> None:
    family = FAMILIES["llava"]()
    seen: list[Tensor] = []

    class Looks(Judge):
        def __call__(self, ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
            with vea.capture(family.model, layers="all") as session:
                super().__call__(ids, scores, **kwargs)
            seen.append(session.attention)
            return torch.zeros(len(ids), dtype=torch.bool)

    with vea.capture(family.model, layers="all", queries="all") as outer:
        for generates in (False, True):
            criteria = StoppingCriteriaList([Looks(family, generates)])
            ids = family.model.generate(
                **asked(family), max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False, stopping_criteria=criteria
            )
    assert (outer.attention - truth(family, ids)).abs().max() <= TOLERANCE
    with vea.capture(family.model, layers="all") as alone, torch.no_grad():
        family.model(**spoiled(family))
    assert len(seen) == 2 * NEW
    for rows in seen:
        assert (rows - alone.attention).abs().max() <= TOLERANCE


# --- without generate() -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("name", ["llava", "gemma3"])
def test_layers_that_backward_runs_again(name: str, reentrant: bool) -> None:
    family = FAMILIES[name]()
    model = copy.deepcopy(family.model).train()
    inputs = asked(family)
    with vea.capture(family.model, layers="all") as plain, torch.no_grad():
        family.model(**inputs)
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    model.enable_input_require_grads()
    with vea.capture(model, layers="all") as session:
        model(**inputs, labels=inputs["input_ids"], use_cache=False).loss.backward()
    assert (session.attention.detach() - plain.attention).abs().max() <= TOLERANCE


def test_a_layer_that_runs_by_itself() -> None:
    family = FAMILIES["llava"]()
    layer = family.model.model.language_model.layers[1]
    states: list[tuple[Any, Any]] = []
    hook = layer.register_forward_pre_hook(lambda _, a, k: states.append((a, k)), with_kwargs=True)
    with vea.capture(family.model, layers="all") as session, torch.no_grad():
        family.model(**asked(family), use_cache=False)
        hook.remove()
        before = session.attention.clone()
        (args, kwargs) = states[0]
        layer(args[0][:, :7] * 2, **{**kwargs, "attention_mask": None, "position_ids": None} | {
            "position_embeddings": tuple(part[:, :7] for part in kwargs["position_embeddings"])
        })  # fmt: skip
    assert torch.equal(session.attention, before)


def test_two_caches_in_turns() -> None:
    """A loop by hand: two prompts, then a token to each. The rows are those of the latest prompt."""
    family = FAMILIES["llava"]()
    first, second = DynamicCache(config=family.model.config), DynamicCache(config=family.model.config)
    token = torch.tensor([[70]])
    with torch.no_grad():
        with vea.capture(family.model, layers="all", queries="all") as alone:
            family.model(**spoiled(family), past_key_values=copy.deepcopy(second), use_cache=True)
            cache = DynamicCache(config=family.model.config)
            family.model(**spoiled(family), past_key_values=cache, use_cache=True)
            family.model(input_ids=token, past_key_values=cache, use_cache=True)
        with vea.capture(family.model, layers="all", queries="all") as session:
            family.model(**asked(family), past_key_values=first, use_cache=True)
            family.model(**spoiled(family), past_key_values=second, use_cache=True)
            family.model(input_ids=token, past_key_values=first, use_cache=True)
            family.model(input_ids=token, past_key_values=second, use_cache=True)
    assert session.attention.shape == alone.attention.shape
    assert (session.attention - alone.attention).abs().max() <= 1e-7
