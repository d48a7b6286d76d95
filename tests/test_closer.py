"""Ways to a better answer: each against what one gets by hand, step by step."""

from __future__ import annotations

import json
import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from families import FAMILIES
from PIL import Image
from test_ask import Passes, picture, wrapped

import vea_sdk as vea
from vea_sdk.errors import InvalidInputError, UnsupportedModelError
from vea_sdk.pipeline.candidates import Gate
from vea_sdk.pipeline.in_batches import in_batches
from vea_sdk.pipeline.refusals import is_refusal

SEEDS = (5001, 5002, 5003)
names = pytest.mark.parametrize("name", FAMILIES)
QUESTION = "what is it?"


@pytest.fixture(scope="module")
def reader() -> vea.VLM:
    return vea.load(vea.tiny.checkpoint(), device="cpu")


def counted(text: str, certainty: float | None) -> float:
    assert certainty is not None
    return 0.0 if is_refusal(text) else certainty


# --- closer


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("gate", [0.74, None])
def test_closer_is_what_one_does_by_hand(reader: vea.VLM, seed: int, gate: float | None) -> None:
    """A look at every window by itself, the three with the highest mass asked by themselves, the surest kept."""
    sample = vea.tiny.scene(seed, 0.8, clutter=seed == SEEDS[1])
    answer = reader.ask(sample.image, sample.question, mode="closer", looks=54, min_certainty=gate, max_new_tokens=24)
    looked = []
    for view in vea.views.windows()(sample.image):
        evidence = reader.attend(view.image, sample.question)
        looked.append((float(evidence.scores.sum()), float(evidence.stats["rapt_text"].mean()), view))
    best = sorted(looked, key=lambda one: (-round(one[0], 6), one[1]))[:3]
    plain = reader.ask(sample.image, sample.question, mode="none", max_new_tokens=24)
    asked = [reader.ask(view.image, sample.question, mode="none", max_new_tokens=24) for _, _, view in best]
    sure = [counted(one.text, one.certainty) for one in asked]
    first = counted(plain.text, plain.certainty)
    taken = int(np.argmax(sure)) if max(sure) > max(first, gate or 0) else None
    assert answer.text == (plain.text if taken is None else asked[taken].text)
    assert answer.window == (None if taken is None else best[taken][2].box)
    assert answer.baseline == plain.text
    assert answer.cost == vea.pipeline.Cost(54, 4)
    assert [one.box for one in answer.candidates[1:]] == [view.box for _, _, view in looked]
    for one, (mass, _, _) in zip(answer.candidates[1:], looked, strict=True):
        assert one.image_mass == pytest.approx(mass, abs=1e-5)
    told = {one.box: (one.text, one.certainty) for one in answer.candidates[1:] if one.text is not None}
    assert told.keys() == {view.box for _, _, view in best}
    for (_, _, view), one in zip(best, asked, strict=True):
        assert told[view.box] == (one.text, pytest.approx(one.certainty, abs=1e-4))
    assert [one.chosen for one in answer.candidates].count(True) == 1
    assert answer.candidates[0].chosen == (taken is None)


@pytest.mark.parametrize("seed", SEEDS)
def test_closer_goes_around_the_best_two(reader: vea.VLM, seed: int) -> None:
    sample = vea.tiny.scene(seed)
    answer = reader.ask(sample.image, sample.question, mode="closer", max_new_tokens=24)
    coarse, fine = answer.candidates[1:55], answer.candidates[55:]
    texts = {view.box: index for index, view in enumerate(vea.views.windows()(sample.image))}
    assert [texts[one.box] for one in coarse] == list(range(54))
    masses = sorted((round(one.image_mass or 0, 6) for one in coarse), reverse=True)
    best = [one for one in coarse if round(one.image_mass or 0, 6) >= masses[1]]
    allowed = {view.box for one in best for view in vea.views.around(one.box)(sample.image)}
    assert fine
    assert {one.box for one in fine} <= allowed - set(texts)
    assert answer.cost.looks == 54 + len(fine) <= 74


def test_words_of_a_window_lie_on_the_whole_picture(reader: vea.VLM) -> None:
    """The best patch of the word touches the value's box, which only holds in the whole picture's pixels."""
    hits = total = 0
    for seed in range(5010, 5022):
        sample = vea.tiny.scene(seed)
        answer = reader.ask(sample.image, sample.question, mode="closer", max_new_tokens=24)
        if answer.window is None or answer.text != sample.answers[0]:
            continue
        scores = np.mean([word.evidence.scores for word in answer.words], axis=0)
        layout = answer.words[0].evidence.layout
        assert layout.original_size == (sample.image.height, sample.image.width)
        x0, y0, x1, y1 = layout.token_boxes()[int(scores.argmax())]
        bx0, by0, bx1, by1 = sample.boxes[0]
        total += 1
        hits += x0 < bx1 and bx0 < x1 and y0 < by1 and by0 < y1
    assert total >= 5
    assert hits >= 0.8 * total


def test_stop_at_ends_the_search_once_an_answer_is_sure_enough(reader: vea.VLM) -> None:
    sample = vea.tiny.scene(SEEDS[0])
    whole = reader.ask(sample.image, sample.question, mode="closer", max_new_tokens=24)
    early = reader.ask(sample.image, sample.question, mode="closer", max_new_tokens=24, stop_at=0.5, batch_size=8)
    assert early.certainty is not None
    assert early.certainty >= 0.5
    assert early.cost.looks < whole.cost.looks
    assert early.cost.looks % 8 == 0 or early.cost.looks == 54
    at_once = reader.ask(sample.image, sample.question, mode="closer", max_new_tokens=24, stop_at=0.0)
    assert at_once.cost == vea.pipeline.Cost(0, 1)
    assert "stop_at" in at_once.reason


@pytest.mark.parametrize("rank_by", ["random", "centre", "peak"])
def test_controls_look_at_nothing(reader: vea.VLM, rank_by: Any) -> None:
    sample = vea.tiny.scene(SEEDS[0])
    answer = reader.ask(sample.image, sample.question, mode="closer", rank_by=rank_by, max_new_tokens=24)
    again = reader.ask(sample.image, sample.question, mode="closer", rank_by=rank_by, max_new_tokens=24)
    assert answer.candidates == again.candidates
    assert answer.cost == vea.pipeline.Cost(0, 4)
    boxes = [one.box for one in answer.candidates[1:]]
    if rank_by == "random":
        assert set(boxes) < {view.box for view in vea.views.windows()(sample.image)}
    else:
        at = (
            (420.0, 420.0)
            if rank_by == "centre"
            else np.unravel_index(answer.evidence.look().argmax(), (840, 840))[::-1]
        )
        for (x0, y0, x1, y1), share in zip(boxes, (0.8, 0.7, 0.6), strict=True):
            room, side = 840 - round(share * 840), share * 840
            assert x0 == pytest.approx(min(max(0, at[0] - side / 2), room), abs=1)
            assert y0 == pytest.approx(min(max(0, at[1] - side / 2), room), abs=1)
            assert (x1 - x0, y1 - y0) == (round(side), round(side))


def test_a_picture_that_is_seen_whole_is_not_searched(reader: vea.VLM) -> None:
    small = vea.tiny.draw(SEEDS[0])[0].image.resize((200, 200))
    answer = reader.ask(small, QUESTION, mode="closer", max_new_tokens=4)
    assert answer.cost == vea.pipeline.Cost(0, 1)
    assert "all pixels" in answer.reason
    searched = reader.ask(small, QUESTION, mode="closer", max_new_tokens=4, anyway=True, looks=5, answers=2)
    assert searched.cost == vea.pipeline.Cost(5, 3)


@names
def test_windows_make_as_many_tokens_as_the_picture(name: str) -> None:
    """Where a processor would make fewer of a window, it is enlarged; the evidence of its words tells."""
    vlm = wrapped(FAMILIES[name]())
    image = picture(3, 180, 120)
    answer = vlm.ask(
        image, QUESTION, mode="closer", looks=4, answers=2, anyway=True, min_certainty=None, max_new_tokens=2
    )
    assert answer.cost == vea.pipeline.Cost(4, 3)
    whole = vlm.attend(image, QUESTION).layout.n_tokens
    assert answer.words[0].evidence.layout.n_tokens == pytest.approx(whole, rel=0.05)
    assert len(answer.candidates) == 5


@names
@pytest.mark.parametrize("mode", ["closer", "views", "ensemble"])
def test_modes_run_with_several_pictures_in_batches(name: str, mode: Any) -> None:
    vlm = wrapped(FAMILIES[name]())
    options: dict[str, Any] = {"closer": {"looks": 3, "answers": 2, "anyway": True}}.get(mode, {})
    pairs = [[picture(1), picture(2, 90, 60)], [picture(3), picture(4)]]
    answers = vlm.ask_many(pairs, [QUESTION, "and what is that?"], mode, 2, batch_size=2, **options)
    costs = {"closer": vea.pipeline.Cost(3, 3), "views": None, "ensemble": vea.pipeline.Cost(0, 6)}
    for answer in answers:
        assert len(answer.evidence) == 2
        assert answer.reason
        assert costs[mode] in (None, answer.cost)
        assert answer.cost.looks == {"closer": 3, "views": 4, "ensemble": 0}[mode]
        assert [one.chosen for one in answer.candidates].count(True) == 1
        if mode == "closer":
            shares = [one.scores.sum() / one.layout.n_tokens for one in answer.evidence]
            assert {one.image for one in answer.candidates} == {int(np.argmax(shares))}
        assert len(answer.words[0].evidence) == 2 if answer.words else True


@pytest.mark.parametrize("mode", ["closer", "views", "ensemble"])
def test_cost_counts_the_passes_that_were_run(mode: Any) -> None:
    """Rows of all prompts that went through the vision tower: a picture each."""
    family = FAMILIES["llava"]()
    vlm = wrapped(family)
    rows = 0

    def count(module: Any, arguments: Any, keywords: Any) -> None:
        nonlocal rows
        rows += len(arguments[0] if arguments else keywords["pixel_values"])

    tower = family.model.model.vision_tower
    handle = tower.register_forward_pre_hook(count, with_kwargs=True)
    try:
        options: dict[str, Any] = {"closer": {"looks": 7, "answers": 3, "anyway": True}}.get(mode, {})
        answer = vlm.ask(picture(5, 300, 300), QUESTION, mode, 2, batch_size=3, **options)
    finally:
        handle.remove()
    assert rows == answer.cost.looks + answer.cost.answers


@names
def test_both_shows_whole_and_window_in_one_turn(name: str) -> None:
    vlm = wrapped(FAMILIES[name]())
    image = picture(3, 180, 120)
    answer = vlm.ask(
        image, QUESTION, "closer", 2, looks=2, answers=2, anyway=True, show="both", min_certainty=0.0, refusals=bool
    )  # every answer counts as a refusal: the first stays
    assert answer.window is None
    answer = vlm.ask(
        image, QUESTION, "closer", 2, looks=2, answers=2, anyway=True, show="both", min_certainty=None,
        refusals=lambda text: text == answer.baseline,
    )  # fmt: skip
    if answer.window is not None:
        found = answer.words[0].evidence
        whole = vlm.attend(image, QUESTION).layout
        assert found.layout.n_tokens == pytest.approx(2 * whole.n_tokens, rel=0.05)
        boxes = found.layout.token_boxes()
        x0, _, x1, _ = answer.window
        inner = boxes[whole.n_tokens :]
        inner = inner[~np.isnan(inner).any(1)]
        assert inner[:, 0].min() >= x0 - (x1 - x0)
        assert len(found.scores) == found.layout.n_tokens


# --- views


@pytest.mark.parametrize("seed", SEEDS)
def test_views_answers_the_rendering_with_the_highest_mass(reader: vea.VLM, seed: int) -> None:
    sample = vea.tiny.draw(seed)[0]
    image = vea.tiny.glare(sample.image, seed)
    answer = reader.ask(image, sample.question, "views", 24)
    plain = reader.attend(image, sample.question)
    rows = [reader.attend(view.image, sample.question) for view in vea.views.repairs()(image, plain)]
    order = sorted(range(5), key=lambda n: (-round(float(rows[n].scores.sum()), 6), rows[n].stats["rapt_text"].mean()))
    view = vea.views.repairs()(image, plain)[order[0]]
    alone = reader.ask(view.image, sample.question, "none", 24)
    assert answer.text == alone.text
    assert [one.view for one in answer.candidates if one.chosen] == [view.name]
    assert answer.cost == vea.pipeline.Cost(4, 1 if view.name == "plain" else 2)
    by_certainty = reader.ask(image, sample.question, "views", 24, choose_by="certainty")
    told = [counted(one.text or "", one.certainty) for one in by_certainty.candidates]
    assert counted(by_certainty.text, by_certainty.certainty) == max(told)
    assert by_certainty.cost == vea.pipeline.Cost(0, 5)


# --- ensemble


@pytest.mark.parametrize("seed", SEEDS)
def test_an_ensemble_decodes_the_mean_of_its_views(reader: vea.VLM, seed: int) -> None:
    """Greedily by hand, a whole forward pass per token and view, in float64 after the logits."""
    sample = vea.tiny.draw(seed)[0]
    image = vea.tiny.noise(sample.image, seed, 0.6)
    answer = reader.ask(image, sample.question, "ensemble", 24)
    evidence = reader.attend(image, sample.question)
    conversations = [
        {"role": "user", "content": [{"type": "image", "image": view.image}, {"type": "text", "text": answer.prompt}]}
        for view in vea.views.shifts()(image, evidence)
    ]
    fed = [
        reader.processor.apply_chat_template(
            [one], add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        )
        for one in conversations
    ]
    tokens: list[int] = []
    log_p = 0.0
    end = reader.model.generation_config.eos_token_id
    with torch.no_grad():
        while len(tokens) < 24 and (not tokens or tokens[-1] != end):
            steps = []
            for inputs in fed:
                ids = torch.cat([inputs["input_ids"], torch.tensor([tokens], dtype=torch.long)], 1)
                logits = reader.model(input_ids=ids, pixel_values=inputs["pixel_values"]).logits[0, -1]
                steps.append(torch.log_softmax(logits.double(), -1))
            mean = torch.log_softmax(torch.stack(steps).mean(0), -1)
            tokens.append(int(mean.argmax()))
            log_p += float(mean[tokens[-1]])
    assert list(answer.tokens) == tokens
    assert answer.certainty == pytest.approx(math.exp(log_p), rel=1e-3)
    assert answer.cost == vea.pipeline.Cost(0, 6)
    assert len(answer.words) >= 1


# --- certainty in use


def test_an_answer_below_the_limit_abstains_and_says_so(reader: vea.VLM) -> None:
    sample = vea.tiny.draw(SEEDS[0])[0]
    sure = reader.ask(sample.image, sample.question, "none", 24)
    assert sure.certainty is not None
    for below, expected in ((sure.certainty - 0.01, False), (min(1.0, sure.certainty + 1e-6), True)):
        answer = reader.ask(sample.image, sample.question, "none", 24, abstain_below=below)
        assert answer.abstained is expected
        assert answer.text == sure.text
        assert ("abstained" in answer.reason) is expected


@pytest.mark.parametrize("seed", SEEDS)
def test_support_is_the_drop_of_the_answers_log_probability(reader: vea.VLM, seed: int) -> None:
    """Against one forward pass over prompt and answer, painted by hand."""
    sample = vea.tiny.draw(seed)[0]
    answer = reader.ask(sample.image, sample.question, "none", 24)
    found = answer.support(6)
    painted = np.array(sample.image)
    mean = np.asarray(sample.image, np.float64).reshape(-1, 3).mean(0).round()
    for x0, y0, x1, y1 in answer.evidence.top_patches(6):
        painted[round(y0) : round(y1), round(x0) : round(x1)] = mean

    def log_p(image: Image.Image) -> float:
        message = {
            "role": "user",
            "content": [{"type": "image", "image": image}, {"type": "text", "text": answer.prompt}],
        }
        inputs = reader.processor.apply_chat_template(
            [message], add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        )
        ids = torch.cat([inputs["input_ids"], torch.tensor([answer.tokens])], 1)
        with torch.no_grad():
            logits = reader.model(input_ids=ids, pixel_values=inputs["pixel_values"]).logits[0, :-1].double()
        rows = torch.log_softmax(logits, -1)[-len(answer.tokens) :]
        return float(rows.gather(1, torch.tensor(answer.tokens)[:, None]).sum())

    assert found.difference == pytest.approx(log_p(sample.image) - log_p(Image.fromarray(painted)), abs=2e-3)
    assert found.margin == found.difference - found.random
    assert reader.support(answer, 6) == found
    again = vea.Answer.from_dict(json.loads(json.dumps(answer.to_dict())), [answer.evidence.image])
    assert reader.support(again, 6).difference == pytest.approx(found.difference, abs=1e-6)
    with pytest.raises(InvalidInputError, match=r"vlm\.support"):
        again.support(6)
    for k in (0, True, 10_000):
        with pytest.raises(InvalidInputError, match="k="):
            answer.support(k)


@pytest.mark.parametrize(
    ("text", "declines"),
    [
        ("no evidence", True), ("No evidence.", True), ("There is no evidence of that", True), ("", True),
        ("It can’t be determined.", True), ("Not enough information", True), ("G45", False), ("evidence", False),
        ("no", False), ("unable to swim", False), ("piano evidence", False),
    ],
)  # fmt: skip
def test_refusals(text: str, declines: bool) -> None:
    assert is_refusal(text) is declines


@pytest.mark.parametrize(
    ("least", "first", "others", "expected"),
    [
        (0.74, 0.1, [0.7, 0.75, 0.75], 1), (0.74, 0.1, [0.7, 0.74], None), (None, 0.5, [0.4, 0.5], None),
        (None, 0.5, [0.6, 0.9], 1), (0.2, 0.0, [0.0], None), (None, 0.0, [0.0], None), (0.5, 0.9, [], None),
    ],
)  # fmt: skip
def test_the_gate(least: float | None, first: float, others: list[float], expected: int | None) -> None:
    assert Gate(least).surest(first, others) == expected


def test_a_profile_holds_the_gate(reader: vea.VLM) -> None:
    assert reader.min_certainty == 0.74
    assert wrapped(FAMILIES["llava"]()).min_certainty is None


# --- files


def test_what_was_tried_goes_through_json(reader: vea.VLM) -> None:
    sample = vea.tiny.scene(SEEDS[0])
    answer = reader.ask(sample.image, sample.question, "closer", 24, looks=20)
    kept = json.loads(json.dumps(answer.to_dict()))
    back = vea.Answer.from_dict(kept, [answer.evidence.image])
    for name in ("text", "reason", "candidates", "window", "cost", "abstained", "tokens", "certainty"):
        assert getattr(back, name) == getattr(answer, name), name
    for name in ("abstained", "reason", "tokens", "candidates", "window", "cost"):
        del kept[name]  # as an earlier version wrote it
    assert vea.Answer.from_dict(kept, [answer.evidence.image]).candidates == ()


# --- bad input


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("closer", {"looks": 0}, "looks=0"),
    ("closer", {"answers": 0}, "answers=0"),
    ("closer", {"looks": 2, "answers": 3}, "answers=3 is more than looks=2"),
    ("closer", {"min_certainty": 1.5}, "min_certainty=1.5"),
    ("closer", {"min_certainty": True}, "min_certainty=True"),
    ("closer", {"stop_at": -0.1}, "stop_at=-0.1"),
    ("none", {"abstain_below": 2}, "abstain_below=2"),
    ("closer", {"show": "all"}, "show='all'"),
    ("closer", {"rank_by": "luck"}, "rank_by='luck'"),
    ("closer", {"refusals": "no"}, "refusals='no'"),
    ("closer", {"batch_size": 0}, "batch_size=0"),
    ("views", {"choose_by": "luck"}, "choose_by='luck'"),
    ("views", {"views": 3}, "views=3"),
    ("views", {"views": lambda image, evidence=None: []}, "at least one"),
    ("views", {"views": lambda image, evidence=None: [image]}, "View"),
    ("highlight", {"looks": 5}, 'for "closer"'),
    ("ensemble", {"min_certainty": 0.5}, 'for "closer", "views"'),
    ("ensemble", {"do_sample": True}, "do_sample"),
    ("ensemble", {"num_beams": 2}, "num_beams=2"),
    ("sideways", {}, "mode='sideways'"),
]


@pytest.mark.parametrize(("mode", "options", "said"), BAD)
def test_bad_input_is_refused(mode: Any, options: dict[str, Any], said: str) -> None:
    family = FAMILIES["llava"]()
    with Passes(family.model) as passes, pytest.raises(InvalidInputError) as raised:
        wrapped(family).ask(picture(1, 300, 300), QUESTION, mode, 2, **options)
    assert said in str(raised.value)
    assert passes.count == 0 or "views" in options  # those are made of the first look


def test_a_processor_that_takes_one_picture_refuses_both() -> None:
    family = FAMILIES["llava"]()
    vlm = wrapped(family)
    real = vlm.inputs

    def inputs(conversations: Any, *rest: Any) -> Any:
        if any(len(one.media) > 1 for one in conversations):
            raise TypeError("one picture only")
        return real(conversations, *rest)

    vlm.inputs = inputs  # type: ignore[method-assign]
    with pytest.raises(InvalidInputError, match='show="window"'):
        vlm.ask(picture(1, 300, 300), QUESTION, "closer", 2, show="both", anyway=True)


def test_answers_without_logits_cannot_be_chosen_among(monkeypatch: pytest.MonkeyPatch) -> None:
    vlm = wrapped(FAMILIES["llava"]())
    monkeypatch.setattr("vea_sdk.pipeline.generation.MOST_LOGITS", 1)
    for mode, options in (("closer", {}), ("views", {"choose_by": "certainty"}), ("none", {"abstain_below": 0.5})):
        with pytest.raises(InvalidInputError, match="max_new_tokens"):
            vlm.ask(picture(1, 300, 300), QUESTION, mode, 2, **options)  # type: ignore[arg-type]
    assert vlm.ask(picture(1, 300, 300), QUESTION, "views", 2).certainty is None


def test_attention_that_ranks_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of cross-attention hold pictures alone: their image mass is 1 everywhere."""
    vlm = wrapped(FAMILIES["llava"]())
    real = vlm.ask
    image = picture(1, 300, 300)
    first = real(image, QUESTION, "none", 2)

    class Eye:
        name, cross_attention = "mllama", True

    monkeypatch.setattr(type(vlm), "eye", property(lambda self: type("E", (), {"adapter": Eye, "attend_with": None})))
    for mode in ("closer", "views"):
        with pytest.raises(UnsupportedModelError, match="layers of their own"):
            real(image, QUESTION, mode, 2)  # type: ignore[arg-type]
    monkeypatch.undo()
    assert real(image, QUESTION, "none", 2).text == first.text


@pytest.mark.parametrize("kind", [MemoryError, torch.OutOfMemoryError, RuntimeError])
@pytest.mark.parametrize("fits", [1, 3, 5])
def test_a_batch_that_does_not_fit_is_halved_and_said_once(kind: type[Exception], fits: int) -> None:
    ran: list[int] = []

    def run(rows: Any) -> list[int]:
        if len(rows) > fits:
            raise kind("DefaultCPUAllocator: can't allocate memory")
        ran.append(len(rows))
        return [row * row for row in rows]

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert in_batches(range(21), 16, run) == [row * row for row in range(21)]
    assert len(caught) == 1
    assert max(ran) <= fits
    with pytest.raises(RuntimeError, match="another"):
        in_batches([1, 2], 2, lambda rows: (_ for _ in ()).throw(RuntimeError("another")))
    with pytest.raises(kind):
        in_batches([1], 1, lambda rows: (_ for _ in ()).throw(kind("out of memory")))


# --- another model looks; conversations


@pytest.mark.parametrize("mode", ["closer", "views"])
def test_another_model_looks_for_the_one_that_answers(mode: Any) -> None:
    """The windows are ranked by its attention, and its looks are counted, the one of the whole picture included."""
    eye = vea.wrap(FAMILIES["qwen2_vl"]().model, FAMILIES["qwen2_vl"]().processor, layers=[1, 2])
    family = FAMILIES["llava"]()
    vlm = vea.wrap(family.model, family.processor, attend_with=eye)
    image = picture(7, 240, 240)
    options: dict[str, Any] = {"closer": {"looks": 6, "answers": 2, "min_certainty": None}, "views": {}}[mode]
    answer = vlm.ask(image, QUESTION, mode, 2, **options)
    views = {view.name: view for view in vea.views.windows()(image)}
    views |= {view.name: view for view in vea.views.repairs()(image, eye.attend(image, QUESTION))}
    whole = eye.attend(image, QUESTION).layout.n_tokens
    for one in answer.candidates[1:]:
        shown = views[one.view].image
        if mode == "closer" and eye.attend(shown, QUESTION).layout.n_tokens < 0.95 * whole:
            shown = shown.resize(image.size, Image.Resampling.BICUBIC)
        assert one.image_mass == pytest.approx(float(eye.attend(shown, QUESTION).scores.sum()), abs=1e-5)
    assert answer.cost.looks == {"closer": 7, "views": 5}[mode]


@pytest.mark.parametrize("mode", ["closer", "views", "ensemble"])
def test_a_conversation_is_searched_in_its_last_pictures(mode: Any) -> None:
    """Earlier pictures stay as they are; candidates are counted among those that the question is about."""
    family = FAMILIES["llava"]()
    vlm = wrapped(family)
    images = [picture(1, 200, 200), picture(2, 200, 200)]

    def turn(image: Image.Image) -> dict[str, Any]:
        parts = [{"type": "image", "image": image}, {"type": "text", "text": QUESTION}]
        return {"role": "user", "content": parts}

    said = {"role": "assistant", "content": [{"type": "text", "text": "a word"}]}
    shown: list[list[Image.Image]] = []
    real = vlm.inputs

    def inputs(conversations: Any, *rest: Any) -> Any:
        shown.extend(one.media for one in conversations)
        return real(conversations, *rest)

    vlm.inputs = inputs  # type: ignore[method-assign]
    options: dict[str, Any] = {"looks": 3, "answers": 2, "anyway": True} if mode == "closer" else {}
    answer = vlm.ask(messages=[turn(images[0]), said, turn(images[1])], mode=mode, max_new_tokens=2, **options)
    assert len(answer.evidence) == 2
    assert {one.image for one in answer.candidates} == {0}
    assert all(np.array_equal(np.asarray(media[0]), np.asarray(images[0])) for media in shown)
    assert any(not np.array_equal(np.asarray(media[1]), np.asarray(images[1])) for media in shown)
    with pytest.raises(InvalidInputError, match="is for pictures"):
        vlm.ask(video=[images[0], images[1]], question=QUESTION, mode=mode)
