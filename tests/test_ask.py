"""What is asked and what comes back: prompts, options of generate(), certainty, words, conversations, batches."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from families import FAMILIES, TinyFamily
from PIL import Image

import vea_sdk as vea
from vea_sdk.errors import CaptureError, GeometryError, InvalidInputError, UnsupportedModelError
from vea_sdk.pipeline.generation import Generation
from vea_sdk.prompts import HIGHLIGHT_PROMPT, PLAIN_PROMPT, POINTING_SENTENCE, fill

names = pytest.mark.parametrize("name", FAMILIES)
QUESTION = "what is it?"


def picture(seed: int = 0, width: int = 120, height: int = 80) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


class Says(torch.nn.Module):
    """A model whose ``generate()`` returns what it is given here."""

    def __init__(self, output: Any, end: int | None = None) -> None:
        super().__init__()
        self.output, self.generation_config = output, hf.GenerationConfig(eos_token_id=end)

    def generate(self, **_: Any) -> Any:
        return self.output


class Letters:
    """A processor that shows tokens as they are."""

    def batch_decode(self, ids: Any, **_: Any) -> list[str]:
        return [" ".join(map(str, row)) for row in ids.tolist()]


def wrapped(family: TinyFamily, **options: Any) -> vea.VLM:
    return vea.wrap(family.model, family.processor, **({"layers": [1, 2]} | options))


class Passes:
    """Counts forward passes of a model."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.count = 0
        self._handle = model.register_forward_pre_hook(self._called)

    def _called(self, *_: Any) -> None:
        self.count += 1

    def __enter__(self) -> Passes:
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.remove()


# --- what is asked --------------------------------------------------------------------------------------------------


def sent(vlm: vea.VLM, monkeypatch: pytest.MonkeyPatch, **options: Any) -> tuple[vea.Answer, list[str]]:
    """An answer, and what the model read each time, decoded."""
    fed, generate = [], vlm.model.generate

    def seen(**inputs: Any) -> Any:
        fed.append(vlm.processor.batch_decode(inputs["input_ids"], skip_special_tokens=True)[0])
        return generate(**inputs)

    monkeypatch.setattr(vlm.model, "generate", seen, raising=False)
    answer = vlm.ask(picture(), QUESTION, max_new_tokens=2, **options)
    monkeypatch.undo()
    return answer, fed


JSON = 'Reply as {"answer": "..."} or {}. {question} Use {set}.'


@pytest.mark.parametrize(
    ("prompt", "first", "second"),
    [
        (None, fill(PLAIN_PROMPT, QUESTION), fill(HIGHLIGHT_PROMPT, QUESTION)),
        ("method", fill(PLAIN_PROMPT, QUESTION), fill(HIGHLIGHT_PROMPT, QUESTION)),
        ("raw", QUESTION, QUESTION),
        (JSON, JSON.replace("{question}", QUESTION), JSON.replace("{question}", QUESTION) + POINTING_SENTENCE),
    ],
)
def test_the_texts_that_are_sent_stand_in_the_answer(
    prompt: str | None, first: str, second: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm = wrapped(FAMILIES["llava"]())
    answer, fed = sent(vlm, monkeypatch, **({} if prompt is None else {"prompt": prompt}))
    assert (answer.baseline_prompt, answer.prompt) == (first, second)
    assert first in fed[0]
    assert second in fed[1]
    assert answer.evidence.question == QUESTION
    once, fed = sent(vlm, monkeypatch, mode="none", **({} if prompt is None else {"prompt": prompt}))
    assert once.prompt == once.baseline_prompt == first
    assert len(fed) == 1


def test_braces_in_the_question_are_text(monkeypatch: pytest.MonkeyPatch) -> None:
    vlm = wrapped(FAMILIES["llava"]())
    question = 'is {"total": {x}} or {question} right?'
    assert question in vlm.ask(picture(), question, mode="none", max_new_tokens=1).prompt
    own = wrapped(FAMILIES["llava"](), plain_prompt=JSON)
    assert '{"answer": "..."}' in own.ask(picture(), QUESTION, mode="none", max_new_tokens=1).prompt


@pytest.mark.parametrize("prompt", ["{{question}}", "no place", "", 5, "methd", "Say {{question}} and {question}"])
def test_a_prompt_that_drops_the_question_is_refused(prompt: Any) -> None:
    vlm = wrapped(FAMILIES["llava"]())
    with Passes(vlm.model) as passes:
        for call in (vlm.ask, vlm.attend):
            with pytest.raises(InvalidInputError, match="prompt="):
                call(picture(), QUESTION, prompt=prompt)
    assert passes.count == 0
    if prompt != "methd":
        with pytest.raises(InvalidInputError, match="plain_prompt="):
            wrapped(FAMILIES["llava"](), plain_prompt=prompt)


@pytest.mark.parametrize("question", ["", "  \n", None, 5, ["a", "b"], b"what"])
def test_what_is_no_question(question: Any) -> None:
    vlm = wrapped(FAMILIES["llava"]())
    with Passes(vlm.model) as passes:
        for call in (
            lambda: vlm.ask(picture(), question),
            lambda: vlm.attend(picture(), question),
            lambda: vlm.attend_many([picture()], [question]),
            lambda: vlm.ask_many([picture()], [question]),
            lambda: vlm.ask(messages=[{"role": "user", "content": [{"type": "image", "image": picture()}]}]),
        ):
            with pytest.raises(InvalidInputError, match=r"question|text of"):
                call()
    assert passes.count == 0


def test_a_placeholder_in_the_question_is_text_or_named() -> None:
    """One picture stands for 64 image tokens, whatever the question says."""
    vlm = wrapped(FAMILIES["llava"]())
    try:
        evidence = vlm.attend(picture(), "why is <image> here?")
    except InvalidInputError as error:
        assert "<image>" in str(error)  # noqa: PT017
    else:
        assert evidence.scores.shape == (64,)
    template = vlm.processor.chat_template
    vlm.processor.chat_template = None
    try:
        with pytest.raises(InvalidInputError, match="<image>"):
            vlm.attend(picture(), "why is <image> here?")
    finally:
        vlm.processor.chat_template = template


# --- options of generate() ------------------------------------------------------------------------------------------


@names
def test_what_generate_returns_can_be_kept(name: str) -> None:
    vlm = wrapped(FAMILIES[name]())
    plain = vlm.ask(picture(), QUESTION, max_new_tokens=3)
    assert plain.outputs == {}
    kept = vlm.ask(picture(), QUESTION, max_new_tokens=3, return_dict_in_generate=True, output_scores=True)
    assert (kept.baseline, kept.text) == (plain.baseline, plain.text)
    assert set(kept.outputs) == {"baseline", "answer"}
    assert len(kept.outputs["answer"].scores) == 3


def test_several_answers_are_refused() -> None:
    vlm = wrapped(FAMILIES["llava"]())
    config = hf.GenerationConfig(num_return_sequences=2, do_sample=True, max_new_tokens=2)
    with Passes(vlm.model) as passes:
        for options in ({"num_return_sequences": 2, "do_sample": True}, {"generation_config": config}):
            with pytest.raises(InvalidInputError, match="num_return_sequences=2"):
                vlm.ask(picture(), QUESTION, **options)
    assert passes.count == 0


def test_a_generation_config_is_followed() -> None:
    family = FAMILIES["llava"]()
    vlm = wrapped(family)
    config = hf.GenerationConfig(max_new_tokens=5, min_new_tokens=5, do_sample=True, top_k=0, temperature=1.5)
    torch.manual_seed(0)
    answer = vlm.ask(picture(), QUESTION, mode="none", prompt="raw", generation_config=config)
    inputs = family.inputs(picture(), QUESTION)
    torch.manual_seed(0)
    ids = family.model.generate(**inputs, generation_config=config)[0, inputs["input_ids"].shape[1] :]
    assert answer.text == family.processor.decode(ids, skip_special_tokens=True).strip()
    assert sum(len(word.tokens) for word in answer.words) <= 5
    short = vlm.ask(picture(), QUESTION, mode="none", prompt="raw", generation_config=config, max_new_tokens=1)
    assert len(short.word_source.generated.tokens) == 1  # type: ignore[union-attr]


@pytest.mark.parametrize("wrong", [{"max_new_tokens": 0}, {"max_new_tokens": True}, {"input_ids": torch.ones(1, 2)}])
def test_options_that_cannot_be(wrong: dict[str, Any]) -> None:
    vlm = wrapped(FAMILIES["llava"]())
    with Passes(vlm.model) as passes, pytest.raises(InvalidInputError, match=next(iter(wrong))):
        vlm.ask(picture(), QUESTION, **wrong)
    assert passes.count == 0


# --- constants per call ---------------------------------------------------------------------------------------------


def test_constants_and_layers_of_a_call() -> None:
    vlm = wrapped(FAMILIES["llava"]())
    plain = vlm.attend(picture(), QUESTION)
    other = vlm.attend(picture(), QUESTION, sigma=0.1, alpha=0.2, lam=3.0, layers=[3])
    assert (other.sigma, other.alpha, other.lam, other.layers) == (0.1, 0.2, 3.0, (3,))
    assert (plain.sigma, plain.alpha, plain.lam, plain.layers) == (0.5, 0.5, 10.0, (1, 2))
    answer = vlm.ask(picture(), QUESTION, max_new_tokens=1, sigma=0.1, alpha=0.2, layers="all")
    assert np.array_equal(np.asarray(answer.highlighted), np.asarray(answer.evidence.highlight()))
    assert answer.evidence.layers == (0, 1, 2, 3)
    assert answer.words[0].evidence.layers == (0, 1, 2, 3) if answer.words else True
    (many,) = vlm.attend_many([picture()], [QUESTION], sigma=0.1)
    assert many.sigma == 0.1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"sigma": -1}, "sigma=-1"),
        ({"sigma": "x"}, "sigma='x'"),
        ({"sigma": math.nan}, "sigma=nan"),
        ({"sigma": math.inf}, "sigma=inf"),
        ({"alpha": 2}, "alpha=2"),
        ({"alpha": math.nan}, "alpha=nan"),
        ({"lam": 0}, "lam=0"),
        ({"lam": None}, "lam"),
        ({"layers": [9]}, "9"),
        ({"layers": "deep"}, "deep"),
    ],
)
def test_constants_that_cannot_be_are_refused_before_the_model_runs(wrong: dict[str, Any], message: str) -> None:
    family = FAMILIES["llava"]()
    vlm = wrapped(family)
    with Passes(family.model) as passes:
        if None not in wrong.values():
            for call in (vlm.ask, vlm.attend):
                with pytest.raises(InvalidInputError, match=message):
                    call(picture(), QUESTION, **wrong)
        with pytest.raises(InvalidInputError, match=message):
            wrapped(family, **wrong)
    assert passes.count == 0


# --- certainty ------------------------------------------------------------------------------------------------------


def by_hand(family: TinyFamily, inputs: Any, new: list[int], row: int = 0) -> list[float]:
    """log softmax of the raw logits at each token, from one pass over prompt and answer."""
    ids = torch.cat([inputs["input_ids"][row], torch.tensor(new)])[None]
    mask = torch.cat([inputs["attention_mask"][row], torch.ones(len(new), dtype=torch.int64)])[None]
    skip = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids")
    extra = {name: value for name, value in inputs.items() if name not in skip}
    for name in skip[2:]:
        if name in inputs:
            extra[name] = torch.cat([inputs[name][row], torch.zeros(len(new), dtype=inputs[name].dtype)])[None]
    with torch.no_grad():
        logits = family.model(input_ids=ids, attention_mask=mask, **extra).logits[0].double()
    chosen = logits.log_softmax(-1)[inputs["input_ids"].shape[1] - 1 : -1]
    return [float(chosen[n, token]) for n, token in enumerate(new)]


@names
def test_certainty_is_the_product_of_the_tokens_probabilities(name: str) -> None:
    """Raw logits: a processor that changes scores does not change them."""
    family = FAMILIES[name]()
    vlm = wrapped(family)
    answer = vlm.ask(picture(), QUESTION, mode="none", prompt="raw", max_new_tokens=4, repetition_penalty=1.3)
    tokens = answer.word_source.generated.tokens.tolist()  # type: ignore[union-attr]
    expected = by_hand(family, family.inputs(picture(), QUESTION), tokens)
    assert answer.certainty == pytest.approx(math.exp(sum(expected)), rel=1e-3)
    assert answer.certainty_per_token == pytest.approx(answer.certainty ** (1 / len(tokens)), rel=1e-6)
    assert answer.baseline_certainty == answer.certainty
    for word in answer.words:
        assert word.certainty == pytest.approx(math.exp(sum(expected[t] for t in word.tokens)), rel=1e-3)
    second = vlm.ask(picture(), QUESTION, max_new_tokens=3)
    assert second.baseline_certainty != second.certainty
    assert second.baseline_certainty == vlm.ask(picture(), QUESTION, mode="none", max_new_tokens=3).certainty


def test_an_answer_ends_with_its_end_token() -> None:
    """In a batch, rows that have ended go on in padding, here with the end token itself and with another one."""
    prompts = torch.tensor([[8, 9]] * 4)
    said = torch.tensor([[5, 2, 2, 2], [5, 6, 7, 2], [5, 6, 7, 4], [2, 0, 0, 0]])
    model = Says(torch.cat([prompts, said], 1), end=2)
    found = Generation(model, {}, 4).run(Letters(), {"input_ids": prompts}, 2)
    assert [one.tokens.tolist() for one in found] == [[5, 2], [5, 6, 7, 2], [5, 6, 7, 4], [2]]
    assert [one.finished for one in found] == [True, True, False, True]


def test_certainty_of_a_beam_that_changed_its_place() -> None:
    logits = torch.randn(3, 2, 6, generator=torch.Generator().manual_seed(0))
    beams, said = torch.tensor([[1, 0, 1]]), torch.tensor([[3, 5, 0]])
    output = {"sequences": torch.tensor([[8, 9, 3, 5, 0]]), "logits": tuple(logits), "beam_indices": beams}
    (found,) = Generation(Says(output), {}, 3).run(Letters(), {"input_ids": torch.tensor([[8, 9]])}, 2)
    chances = [logits[step, beams[0, step]].double().softmax(0)[said[0, step]].item() for step in range(3)]
    assert found.certainty == pytest.approx(math.prod(chances), rel=1e-6)


def test_an_answer_says_whether_it_was_cut() -> None:
    family = FAMILIES["llava"]()
    vlm = wrapped(family)
    cut = vlm.ask(picture(), QUESTION, mode="none", max_new_tokens=2, min_new_tokens=2)
    assert not cut.finished
    first = cut.word_source.generated.tokens[0].item()  # type: ignore[union-attr]
    ended = vlm.ask(picture(), QUESTION, mode="none", max_new_tokens=6, eos_token_id=first)
    assert ended.finished
    assert len(ended.word_source.generated.tokens) == 1  # type: ignore[union-attr]
    stopped = vlm.ask(
        picture(), QUESTION, mode="none", max_new_tokens=6, stopping_criteria=[lambda ids, _: ids[:, -1] > -1]
    )
    assert stopped.finished


def test_logits_that_would_not_fit_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    from vea_sdk.pipeline import generation

    vlm = wrapped(FAMILIES["llava"]())
    usual = vlm.ask(picture(), QUESTION, mode="none", max_new_tokens=3)
    monkeypatch.setattr(generation, "MOST_LOGITS", 100)
    answer = vlm.ask(picture(), QUESTION, mode="none", max_new_tokens=3)
    assert answer.certainty is answer.certainty_per_token is None
    assert answer.text == usual.text
    assert [word.certainty for word in answer.words] == [None] * len(usual.words)
    for word, other in zip(answer.words, usual.words, strict=True):
        assert np.array_equal(word.evidence.scores, other.evidence.scores)


# --- words ----------------------------------------------------------------------------------------------------------


@names
def test_words_of_both_answers_need_no_pass_of_their_own(name: str) -> None:
    family = FAMILIES[name]()
    vlm = wrapped(family)
    with Passes(family.model) as without:
        vlm.ask(picture(), QUESTION, max_new_tokens=4, min_new_tokens=4, words=False)
    with Passes(family.model) as passes:
        answer = vlm.ask(picture(), QUESTION, max_new_tokens=4, min_new_tokens=4)
        words, baseline = answer.words, answer.baseline_words
        evidence = [word.evidence for word in (*words, *baseline)]
    assert passes.count == without.count
    for text, found in ((answer.text, words), (answer.baseline, baseline)):
        assert [text[slice(*word.span)] for word in found] == [word.text for word in found]
        assert "".join(word.text for word in found) == "".join(text.split())
    assert all(np.array_equal(np.asarray(one.image), np.asarray(picture())) for one in evidence)
    shown = family.inputs(answer.highlighted, answer.prompt)  # the rows of the second question are about its picture
    with vea.capture(family.model, layers=[1, 2], queries="all") as session:
        ids = family.model.generate(**shown, max_new_tokens=4, min_new_tokens=4, do_sample=False)
    for word, other in zip(words, session.words(ids, family.processor), strict=True):
        rows = session.attention[:, 0, list(other.rows)].mean(1).numpy()
        assert np.abs(word.evidence.layer_scores - rows).max() <= 2e-6


def test_words_of_several_pictures() -> None:
    family = FAMILIES["qwen2_vl"]()
    answer = wrapped(family).ask([picture(1), picture(2, 70, 110)], QUESTION, max_new_tokens=3, min_new_tokens=3)
    for word in answer.words:
        assert [one.image.size for one in word.evidence] == [(120, 80), (70, 110)]
    rated = answer.words_at(10, 10, image=1)
    assert {id(word) for word, _ in rated} == {id(word) for word in answer.words}
    assert [score for _, score in rated] == sorted((score for _, score in rated), reverse=True)
    for word, score in rated:
        assert score == word.evidence[1].score_at(10, 10)
    with pytest.raises(InvalidInputError, match="image=2"):
        answer.words_at(10, 10, image=2)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"assistant_model": "a copy"}, "assisted decoding"),
        ({"num_beams": 2}, "beam search"),
        ({"words": False}, "words=False"),
        ({"generation_config": hf.GenerationConfig(num_beams=2, max_new_tokens=3)}, "beam search"),
    ],
)
def test_where_rows_cannot_be_had_words_say_why(options: dict[str, Any], reason: str) -> None:
    vlm = wrapped(FAMILIES["llava"]())
    if "assistant_model" in options:
        options = {"assistant_model": copy.deepcopy(vlm.model)}
    answer = vlm.ask(picture(), QUESTION, max_new_tokens=3, **options)
    assert isinstance(answer.text, str)
    with pytest.raises(CaptureError, match=reason):
        _ = answer.words
    with pytest.raises(CaptureError, match=reason):
        _ = answer.baseline_words
    if "words" not in options:
        assert answer.evidence.scores.shape == (64,)


def test_assisted_decoding_answers_as_before() -> None:
    family = FAMILIES["llava"]()
    vlm = wrapped(family)
    plain = vlm.ask(picture(), QUESTION, max_new_tokens=6)
    assisted = vlm.ask(picture(), QUESTION, max_new_tokens=6, assistant_model=copy.deepcopy(family.model))
    assert (assisted.text, assisted.baseline) == (plain.text, plain.baseline)


def test_a_generate_of_ones_own() -> None:
    """It takes no options of Transformers' and returns ids alone."""
    family = FAMILIES["llava"]()

    class Own(type(family.model)):  # type: ignore[misc]
        def generate(
            self, input_ids: torch.Tensor, do_sample: bool, max_new_tokens: int, **inputs: Any
        ) -> torch.Tensor:
            assert not do_sample
            for _ in range(max_new_tokens):
                with torch.no_grad():
                    logits = self(input_ids=input_ids, use_cache=False, pixel_values=inputs["pixel_values"]).logits
                input_ids = torch.cat([input_ids, logits[:, -1:].argmax(-1)], dim=1)
            return input_ids

    before = type(family.model)
    family.model.__class__ = Own
    try:
        answer = wrapped(family).ask(picture(), QUESTION, max_new_tokens=2)
    finally:
        family.model.__class__ = before
    plain = wrapped(family).ask(picture(), QUESTION, max_new_tokens=2)
    assert answer.baseline == plain.baseline
    assert answer.certainty is None
    with pytest.raises(CaptureError, match="code of its own"):
        _ = answer.words


def test_words_of_a_model_for_which_another_attends() -> None:
    answerer, looker = FAMILIES["qwen2_vl"](), FAMILIES["llava"]()
    vlm = vea.wrap(answerer.model, answerer.processor, attend_with=wrapped(looker, layers=[0]))
    answer = vlm.ask(picture(), QUESTION, max_new_tokens=3, min_new_tokens=3)
    assert answer.evidence.layers == (0,)
    alone = wrapped(answerer, layers=[2, 3]).ask(picture(), QUESTION, mode="none", max_new_tokens=3, min_new_tokens=3)
    assert answer.baseline == alone.text
    for word, other in zip(answer.baseline_words, alone.words, strict=True):
        assert word.evidence.layers == other.evidence.layers == (2, 3)
        assert np.abs(word.evidence.scores - other.evidence.scores).max() <= 1e-6


# --- conversations --------------------------------------------------------------------------------------------------


def user(*parts: Any) -> dict[str, Any]:
    content = [{"type": "text", "text": p} if isinstance(p, str) else {"type": "image", "image": p} for p in parts]
    return {"role": "user", "content": content}


CHAT = [
    {"role": "system", "content": [{"type": "text", "text": "be brief"}]},
    user(picture(1), "what is this?"),
    {"role": "assistant", "content": [{"type": "text", "text": "a thing"}]},
    user(picture(2, 70, 110), picture(3, 60, 60), "and these?"),
    {"role": "assistant", "content": [{"type": "text", "text": "others"}]},
    user("which is brighter?"),
]


@names
def test_a_conversation_is_what_the_template_makes_of_it(name: str) -> None:
    family = FAMILIES[name]()
    vlm = wrapped(family)
    found = vlm.attend(messages=CHAT)
    assert [one.image.size for one in found] == [(120, 80), (70, 110), (60, 60)]
    text = family.processor.apply_chat_template(CHAT, add_generation_prompt=True, tokenize=False)
    shown = [picture(1), picture(2, 70, 110), picture(3, 60, 60)]
    inputs = family.processor(images=[shown], text=[text], return_tensors="pt")
    with vea.capture(family.model, layers=[1, 2]) as session, torch.no_grad():
        family.model(**inputs)
    expected = session.attention[:, 0, 0].mean(0).numpy()
    assert np.abs(np.concatenate([one.scores for one in found]) - expected).max() <= 2e-6
    answer = vlm.ask(messages=CHAT, max_new_tokens=2)
    assert [one.size for one in answer.highlighted] == [(70, 110), (60, 60)]  # of the last turn that shows any
    assert answer.highlighted_images == (1, 2)
    assert answer.prompt == answer.baseline_prompt == "which is brighter?"  # raw
    for one, other in zip(answer.evidence, found, strict=True):
        assert np.abs(one.scores - other.scores).max() <= 2e-6


def test_which_pictures_are_highlighted() -> None:
    vlm = wrapped(FAMILIES["qwen2_vl"]())
    answer = vlm.ask(messages=CHAT, max_new_tokens=1, highlight_images=[0])
    assert [one.size for one in answer.highlighted] == [(120, 80)]
    assert np.array_equal(np.asarray(answer.highlighted[0]), np.asarray(answer.evidence[0].highlight()))
    for wrong in ([3], [-1], [], [0, 0], [True]):
        with pytest.raises(InvalidInputError, match="highlight_images="):
            vlm.ask(messages=CHAT, highlight_images=wrong)
    with pytest.raises(InvalidInputError, match="highlight_images="):
        vlm.ask(picture(), QUESTION, highlight_images=[0])


def test_a_conversation_with_the_methods_prompts() -> None:
    vlm = wrapped(FAMILIES["qwen2_vl"]())
    answer = vlm.ask(messages=CHAT, max_new_tokens=1, prompt="method")
    assert answer.baseline_prompt == fill(PLAIN_PROMPT, "which is brighter?")
    assert answer.prompt == fill(HIGHLIGHT_PROMPT, "which is brighter?")


def test_tensors_of_a_conversation_are_highlighted_where_the_question_is() -> None:
    family = FAMILIES["llava"]()
    vlm = wrapped(family, alpha=0.9, sigma=1.0)
    chat = [
        user(picture(1), "what?"),
        {"role": "assistant", "content": [{"type": "text", "text": "a"}]},
        user(picture(2), "and?"),
    ]
    tensor = vlm.ask(messages=chat, max_new_tokens=3, highlight_on="tensor")
    slow = vlm.ask(messages=chat, max_new_tokens=3)
    assert np.array_equal(np.asarray(tensor.highlighted[0]), np.asarray(slow.highlighted[0]))
    assert tensor.highlighted_images == (1,)


def test_the_conversation_stays_as_it_was() -> None:
    chat = [dict(turn) for turn in CHAT]
    before = json.dumps(chat, default=id)
    wrapped(FAMILIES["qwen2_vl"]()).ask(messages=chat, max_new_tokens=1)
    assert json.dumps(chat, default=id) == before


def test_pictures_of_a_conversation_come_from_anywhere(tmp_path: Any) -> None:
    import base64

    vlm = wrapped(FAMILIES["qwen2_vl"]())
    path = tmp_path / "a.png"
    picture().save(path)
    encoded = base64.b64encode(path.read_bytes()).decode()
    (right,) = vlm.attend(messages=[user(picture(), QUESTION)])
    for part in ({"path": str(path)}, {"url": path.as_uri()}, {"base64": encoded}, {"image": path.read_bytes()}):
        turn = {"role": "user", "content": [{"type": "image", **part}, {"type": "text", "text": QUESTION}]}
        (found,) = vlm.attend(messages=[turn])
        assert np.array_equal(found.scores, right.scores)


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "no conversation"),
        ("what?", "no conversation"),
        ([user("what?")], "no picture"),
        ([{"role": "user", "content": "what?"}], "no picture"),
        ([user(picture(), "what?"), {"role": "assistant", "content": "that"}], "role 'assistant'"),
        ([user(picture())], "text of"),
        ([user(picture(), " ")], "text of"),
        ([{"content": "what?"}], r"messages\[0\]"),
        ([{"role": "user"}], r"messages\[0\]"),
        ([{"role": "user", "content": 5}], "content=5"),
        ([{"role": "user", "content": [{"type": "audio", "audio": "a.wav"}]}], "audio"),
        ([{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "a"}]}], "0 sources"),
        ([{"role": "user", "content": [{"type": "text", "text": 5}]}], r"messages\[0\], part 0"),
    ],
)
def test_what_is_no_conversation(messages: Any, message: str) -> None:
    vlm = wrapped(FAMILIES["llava"]())
    with Passes(vlm.model) as passes:
        for call in (vlm.attend, vlm.ask):
            with pytest.raises(InvalidInputError, match=message):
                call(messages=messages)
    assert passes.count == 0


def test_messages_exclude_picture_and_question() -> None:
    vlm = wrapped(FAMILIES["llava"]())
    with pytest.raises(InvalidInputError, match="leave image and question out"):
        vlm.attend(picture(), QUESTION, messages=CHAT)  # type: ignore[call-overload]
    with pytest.raises(InvalidInputError, match="no picture was given"):
        vlm.attend()  # type: ignore[call-overload]


def test_several_turns_need_a_template() -> None:
    vlm = wrapped(FAMILIES["llava"]())
    template, vlm.processor.chat_template = vlm.processor.chat_template, None
    try:
        with pytest.raises(UnsupportedModelError, match="chat template"):
            vlm.attend(messages=CHAT)
        vlm.processor.tokenizer.chat_template = template
        assert len(vlm.attend(messages=CHAT)) == 3
        vlm.processor.tokenizer.chat_template = {"default": template, "tools": "{{ 1 }}"}
        assert len(vlm.attend(messages=CHAT)) == 3
        vlm.processor.tokenizer.chat_template = {"one": template, "two": template}
        with pytest.raises(InvalidInputError, match="one, two"):
            vlm.attend(messages=CHAT)
    finally:
        vlm.processor.tokenizer.chat_template = None
        vlm.processor.chat_template = template


# --- batches --------------------------------------------------------------------------------------------------------


@names
@pytest.mark.parametrize("mode", ["highlight", "none"])
def test_a_batch_equals_its_questions(name: str, mode: Any) -> None:
    family = FAMILIES[name]()
    vlm = wrapped(family)
    images = [picture(1), picture(2, 90, 140), picture(3, 200, 60)]
    questions = [QUESTION, "and what, please, is the thing in the other corner?", "why?"]
    found = vlm.ask_many(images, questions, mode, max_new_tokens=4, batch_size=2)
    for answer, image, question in zip(found, images, questions, strict=True):
        alone = vlm.ask(image, question, mode, max_new_tokens=4)
        assert (answer.text, answer.baseline, answer.prompt) == (alone.text, alone.baseline, alone.prompt)
        assert answer.certainty == pytest.approx(alone.certainty, rel=5e-3)  # padding moves logits by rounding
        assert answer.finished == alone.finished
        assert np.abs(answer.evidence.scores - alone.evidence.scores).max() <= 2e-6
        assert [word.text for word in answer.words] == [word.text for word in alone.words]
        for word, other in zip(answer.words, alone.words, strict=True):
            # Evidence that differs by rounding may highlight a pixel by another grey level.
            assert np.abs(word.evidence.scores - other.evidence.scores).max() <= (2e-5 if mode == "highlight" else 2e-6)


def test_a_batch_of_several_pictures_each() -> None:
    vlm = wrapped(FAMILIES["qwen2_vl"]())
    one, two = vlm.ask_many([[picture(1), picture(2)], picture(3)], ["both?", "this?"], max_new_tokens=2)
    assert isinstance(one.evidence, list)
    assert isinstance(two.evidence, vea.Evidence)
    assert np.abs(two.evidence.scores - vlm.attend(picture(3), "this?").scores).max() <= 2e-6
    assert vlm.ask_many([], []) == []
    for wrong in (0, -1, True):
        with pytest.raises(InvalidInputError, match="batch_size="):
            vlm.ask_many([picture()], ["a"], batch_size=wrong)
    for questions in (["a", "b"], "a"):
        with pytest.raises(InvalidInputError, match="questions"):
            vlm.ask_many([picture()], questions)


# --- kept answers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["highlight", "none"])
@pytest.mark.parametrize("several", [True, False])
def test_an_answer_goes_through_json(mode: Any, several: bool) -> None:
    vlm = wrapped(FAMILIES["qwen2_vl"]())
    images = [picture(1), picture(2, 60, 60)] if several else picture(1)
    answer = vlm.ask(images, QUESTION, mode, max_new_tokens=4, min_new_tokens=4)
    kept = json.loads(json.dumps(answer.to_dict()))
    again = vea.Answer.from_dict(kept, images if several else [images])
    for name in ("text", "baseline", "mode", "prompt", "certainty", "finished", "timings", "highlighted_images"):
        assert getattr(again, name) == getattr(answer, name)
    mine, theirs = ([a.evidence] if not several else a.evidence for a in (answer, again))
    for one, other in zip(mine, theirs, strict=True):
        assert one.layer_scores.tobytes() == other.layer_scores.tobytes()
    if mode == "none":
        assert again.highlighted is None
    else:
        for one, other in zip(
            *([a.highlighted] if not several else a.highlighted for a in (answer, again)), strict=True
        ):
            assert np.array_equal(np.asarray(one), np.asarray(other))
    for words, others in ((answer.words, again.words), (answer.baseline_words, again.baseline_words)):
        for word, other in zip(words, others, strict=True):
            assert dataclasses.astuple(word)[:5] == dataclasses.astuple(other)[:5]
            first, second = (w.evidence[0] if several else w.evidence for w in (word, other))
            assert first.scores.tobytes() == second.scores.tobytes()


def test_an_answer_without_words_says_why_later_too() -> None:
    answer = wrapped(FAMILIES["llava"]()).ask(picture(), QUESTION, max_new_tokens=2, num_beams=2)
    again = vea.Answer.from_dict(answer.to_dict(), [picture()])
    with pytest.raises(CaptureError, match="beam search"):
        _ = again.words
    bare = vea.Answer.from_dict(answer.to_dict(words=False), [picture()])
    with pytest.raises(CaptureError, match="without its words"):
        _ = bare.words
    with pytest.raises(InvalidInputError, match=r"2 images.*1"):
        vea.Answer.from_dict(answer.to_dict(), [picture(), picture()])
    for wrong in ({}, {"version": 1}, None, {"version": 99}):
        with pytest.raises(InvalidInputError, match="dictionary"):
            vea.Answer.from_dict(wrong, [])  # type: ignore[arg-type]


def test_unknown_geometry_answers_without_evidence(monkeypatch: pytest.MonkeyPatch) -> None:
    family = FAMILIES["llava"]()

    def unknown(*_: Any) -> None:
        raise GeometryError("tokens of this model have no place")

    monkeypatch.setattr(type(vea.adapters.find(family.model)), "lay_out", unknown)
    vlm = wrapped(family)
    answer = vlm.ask(picture(), QUESTION, mode="none", max_new_tokens=2)
    assert answer.evidence is None
    assert isinstance(answer.text, str)
    with pytest.raises(CaptureError, match="which part of the picture"):
        _ = answer.words
    with Passes(family.model) as passes:
        for call in (vlm.attend, vlm.ask):
            with pytest.raises(GeometryError, match="no place"):
                call(picture(), QUESTION)
    assert passes.count == 0
    assert vea.Answer.from_dict(answer.to_dict(), []).evidence is None
