"""Asking: attend and ask with one picture, two, and a second turn, against inputs made without the pipeline."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image

import vea_sdk as vea
from tests.conformance.capture import Mismatch, picture
from tests.conformance.tiny import Tiny
from tests.families import chat_template
from vea_sdk.errors import GeometryError, InvalidInputError, UnsupportedModelError
from vea_sdk.pipeline import Cost, generation
from vea_sdk.pipeline.conversation import Conversation, one_turn

QUESTION, LATER = "what is written here?", "and on this one?"
TOLERANCE = 2e-6  # two forward passes of one model over the same ids


MODES = (
    "llava",
    "llava_next",
    "qwen2_vl",
    "qwen2_5_vl",
    "qwen3_vl",
    "gemma3",
    "internvl",
    "idefics3",
    "mllama",
    "florence2",
)
"""One of each lineage: asked in every mode, too."""

BATCH_TOLERANCE = 1e-4  # of the largest logit: rows of a batch, each beside what it gives alone


def check_ask(tiny: Tiny) -> dict[str, Any]:
    """What can be asked: "ok", "one picture", "one turn", "answer only" where there is no map; or that it refuses; and
    whether it answers otherwise in a batch.

    Raises Mismatch where scores are not those of inputs made by hand, or an answer or a refusal is missing.
    """
    adapter = vea.adapters.find(tiny.model)
    one, other = picture((60, 84), 1), picture((92, 50), 2)
    if adapter.no_question:
        refused(lambda: wrapped(tiny).ask(one, QUESTION), UnsupportedModelError, "cannot be asked")
        return {"ask": "refuses", "batches_differ": False}
    with templated(tiny) as chats:
        vlm = wrapped(tiny)
        turn = user(one, QUESTION)
        differ = batches_differ(tiny, vlm)
        if tiny.no_grid is not None:
            check_answer_only(vlm, one)
            return {"ask": "answer only", "batches_differ": differ}
        compare(tiny, vlm, [vlm.attend(one, QUESTION, prompt="raw")], [turn], [one])
        several = tiny.several and takes_two(vlm, [one, other])
        if several:
            both = vlm.attend([one, other], QUESTION, prompt="raw")
            compare(tiny, vlm, both, [user(one, other, QUESTION)], [one, other])
        if chats:
            said = {"role": "assistant", "content": [{"type": "text", "text": "a word"}]}
            again = user(other, LATER) if several else user(LATER)
            shown = [one, other] if several else [one]
            compare(tiny, vlm, vlm.attend(messages=[turn, said, again]), [turn, said, again], shown)
            check_answer(vlm.ask(messages=[turn, said, again], max_new_tokens=2), len(shown))
        answer = vlm.ask(one, QUESTION, max_new_tokens=2)
        check_answer(answer, 1)
        check_length(vlm, one, answer)
        if tiny.model.config.model_type in MODES:
            check_modes(vlm, picture((180, 252), 3))
    limits = ["one picture"] * (not several) + ["one turn"] * (not chats)
    return {"ask": ", ".join(limits) or "ok", "batches_differ": differ}


def check_modes(vlm: vea.VLM, image: Image.Image) -> None:
    """Every way to a better answer runs and counts its passes, also where attention on a picture ranks nothing."""
    crossed = vlm.adapter.cross_attention
    ranked: dict[str, Any] = {"rank_by": "peak"} if crossed else {"looks": 3}
    ask = partial(vlm.ask, image, QUESTION, max_new_tokens=2)
    found = {
        "closer": ask(mode="closer", answers=2, anyway=True, min_certainty=None, **ranked),
        "views": ask(mode="views", choose_by="certainty"),
        "ensemble": ask(mode="ensemble"),
    }
    costs = {"closer": Cost(0 if crossed else 3, 3), "views": Cost(0, 5), "ensemble": Cost(0, 6)}
    for mode, answer in found.items():
        if (
            answer.cost != costs[mode]
            or not answer.reason
            or [one.chosen for one in answer.candidates].count(True) != 1
        ):
            raise Mismatch(f"{mode}: {answer.cost} for {costs[mode]}, {answer.reason!r}")
    if crossed:
        refused(lambda: ask(mode="closer", anyway=True), UnsupportedModelError, "layers of their own")


def batches_differ(tiny: Tiny, vlm: vea.VLM) -> bool:
    """Whether the model, by itself, gives other logits for rows of different length in a batch than for each alone."""
    rows = [one_turn([picture((60, 84), n)], text) for n, text in ((1, "what?"), (2, f"{QUESTION} {LATER} {LATER}"))]

    def logits(conversations: Sequence[Conversation]) -> torch.Tensor:
        options = {"max_new_tokens": 3, "min_new_tokens": 3, "do_sample": False}
        options |= {"return_dict_in_generate": True, "output_logits": True}
        return torch.stack(tiny.model.generate(**vlm.inputs(conversations), **options).logits).float()

    together = logits(rows)
    alone = torch.cat([logits([row]) for row in rows], dim=1)
    return bool((together - alone).abs().max() > BATCH_TOLERANCE * alone.abs().max())


def check_length(vlm: vea.VLM, image: Image.Image, answer: vea.Answer[Any]) -> None:
    """Without logits the answer is told from the prompt by its length alone."""
    most, generation.MOST_LOGITS = generation.MOST_LOGITS, 0
    try:
        again = vlm.ask(image, QUESTION, max_new_tokens=2)
    finally:
        generation.MOST_LOGITS = most
    if again.certainty is not None or (again.baseline, again.text) != (answer.baseline, answer.text):
        raise Mismatch(f"ask: {again.baseline!r} without logits, {answer.baseline!r} with them")


def takes_two(vlm: vea.VLM, pictures: list[Image.Image]) -> bool:
    """Whether the architecture's own protocol has a place for a second picture; it says so where it has none."""
    try:
        vlm.attend(pictures, QUESTION)
    except InvalidInputError as error:
        if "one per prompt" in str(error):
            return False
        raise
    return True


def wrapped(tiny: Tiny) -> vea.VLM:
    return vea.wrap(tiny.model, tiny.processor, layers="all")


@contextmanager
def templated(tiny: Tiny) -> Iterator[bool]:
    """A plain chat template with the architecture's own mark, where its checkpoints have one."""
    if not tiny.image_mark or not tiny.chat:
        yield False
        return
    before, tiny.processor.chat_template = tiny.processor.chat_template, chat_template(tiny.image_mark)
    try:
        yield True
    finally:
        tiny.processor.chat_template = before


def user(*parts: Any) -> dict[str, Any]:
    content = [{"type": "text", "text": p} if isinstance(p, str) else {"type": "image", "image": p} for p in parts]
    return {"role": "user", "content": content}


def compare(
    tiny: Tiny, vlm: vea.VLM, found: Sequence[vea.Evidence], messages: Any, pictures: Sequence[Image.Image]
) -> None:
    """The scores are those of a pass over inputs made without the pipeline."""
    if [one.image.size for one in found] != [one.size for one in pictures]:
        raise Mismatch(f"ask: {len(found)} evidences for {len(pictures)} pictures, or of other sizes")
    if tiny.processor.chat_template:
        text = tiny.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        inputs = in_float32(tiny, tiny.processor(images=[list(pictures)], text=[text], return_tensors="pt"))
    else:
        inputs = vlm.adapter.prepare(tiny.processor, [list(pictures)], [messages[0]["content"][-1]["text"]], {})
        inputs = in_float32(tiny, inputs)
    with vea.capture(tiny.model, layers="all") as session, torch.no_grad():
        tiny.model.generate(**inputs, max_new_tokens=1, do_sample=False)
    expected = session.attention[:, 0, 0].mean(0).numpy()
    scores = np.concatenate([one.scores for one in found])
    if scores.shape != expected.shape or np.abs(scores - expected).max() > TOLERANCE:
        raise Mismatch(f"ask: scores {scores.shape} differ from {expected.shape} of inputs made by hand")


def in_float32(tiny: Tiny, inputs: Any) -> Any:
    """Some processors give their pixels in the dtype of the published checkpoint."""
    return {
        name: value.float() if isinstance(value, torch.Tensor) and value.is_floating_point() else value
        for name, value in inputs.items()
    }


def check_answer(answer: vea.Answer[Any], pictures: int) -> None:
    found = answer.evidence if isinstance(answer.evidence, list) else [answer.evidence]
    if len(found) != pictures or not isinstance(answer.text, str) or answer.certainty is None:
        raise Mismatch(f"ask: {answer}")
    if "".join(word.text for word in answer.words) != "".join(answer.text.split()):
        raise Mismatch(f"ask: the words {answer.words} are not those of {answer.text!r}")


def check_answer_only(vlm: vea.VLM, image: Image.Image) -> None:
    """Without a place for the tokens there is an answer, and no map."""
    answer = vlm.ask(image, QUESTION, mode="none", max_new_tokens=2)
    if not isinstance(answer.text, str) or answer.evidence is not None:
        raise Mismatch(f"ask: {answer}")
    refused(lambda: vlm.attend(image, QUESTION), GeometryError, "place")
    refused(lambda: vlm.ask(image, QUESTION), GeometryError, "place")


def refused(call: Any, kind: type[Exception], word: str) -> None:
    try:
        call()
    except kind as error:
        if word in str(error):
            return
        raise Mismatch(f"ask: the refusal says {error}") from error
    raise Mismatch("ask: it should be refused")
