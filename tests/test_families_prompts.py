"""Architectures without a chat template: what is fed is the prompt that their checkpoints were trained with, and rows
of a batch are what each is alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from PIL import Image

import vea_sdk as vea
from tests.conformance import suite
from tests.conformance.tiny import CASES, Tiny
from vea_sdk.adapters import support
from vea_sdk.errors import InvalidInputError, UnsupportedModelError
from vea_sdk.pipeline.conversation import one_turn

suite.architectures()  # fills CASES
QUESTION = "what is it?"

SYSTEM = "system\nYou should follow the instructions carefully and explain your answers in detail."
SENT = {  # with its special tokens, the picture's own places left out
    "blip": QUESTION,  # how a caption begins
    "blip-2": f"Question: {QUESTION} Answer:",
    "git": f"<s>{QUESTION}",  # its class token; the answer follows with no mark between
    "idefics": f"<s>User:<fake_token_around_image><image><fake_token_around_image>{QUESTION}\nAssistant:",
    "instructblip": QUESTION,
    "kosmos-2": f"<s><image></image> Question: {QUESTION} Answer:",
    "kosmos-2.5": f"<s><image></image>{QUESTION}",
    "florence2": f"<s>{QUESTION}</s>",
    "fuyu": f"|NEWLINE|<s>_{QUESTION}\n<0x04>",
    "got_ocr2": f"<|im_start|>{SYSTEM}<|im_end|><|im_start|>user\n<img></img>\n{QUESTION}<|im_end|>"
    "<|im_start|>assistant\n",
}


def picture(seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (60, 84, 3), dtype=np.uint8))


def wrapped(name: str) -> tuple[Tiny, vea.VLM]:
    try:
        tiny = CASES[name]()
    except Exception as error:
        pytest.skip(f"the tiny model of {name} does not build with Transformers {hf.__version__}: {error}")
    return tiny, vea.wrap(tiny.model, tiny.processor, layers="all")


def fed_text(tiny: Tiny, vlm: vea.VLM) -> str:
    """The prompt with its special tokens, the picture's own places left out."""
    inputs = vlm.inputs([one_turn([picture()], QUESTION)])
    ids = inputs["input_ids"][0]
    if not tiny.cross:
        ids = ids[torch.isin(torch.arange(len(ids)), tiny.keys(inputs)[0], invert=True)]
    return str(tiny.processor.tokenizer.decode(ids))


@pytest.mark.parametrize("name", SENT)
def test_the_prompt_that_is_fed(name: str) -> None:
    assert fed_text(*wrapped(name)).endswith(SENT[name])
    if name not in ("florence2", "fuyu"):  # which write their picture's places out
        assert fed_text(*wrapped(name)) == SENT[name]


def test_a_task_stands_alone() -> None:
    _, vlm = wrapped("florence2")
    with pytest.raises(InvalidInputError, match='prompt="raw"'):
        vlm.ask(picture(), "<OCR>")
    assert vlm.ask(picture(), "<OCR>", prompt="raw", mode="none", max_new_tokens=2).prompt == "<OCR>"


def test_an_utterance_ends_where_the_checkpoint_knows_it() -> None:
    tiny, vlm = wrapped("idefics")
    tiny.processor.tokenizer_was_trained_with_end_of_utterance_token = True
    assert fed_text(tiny, vlm).endswith(f"{QUESTION}<end_of_utterance>\nAssistant:")


def test_the_ocr_prompt_is_that_of_its_processor() -> None:
    tiny, vlm = wrapped("got_ocr2")
    tokens = int(tiny.model.config.image_seq_length)
    own = tiny.processor(images=[picture()], num_image_tokens=tokens, return_tensors="pt")["input_ids"]
    assert torch.equal(vlm.inputs([one_turn([picture()], " OCR: ")])["input_ids"], own)


@pytest.mark.parametrize("name", [*SENT, "pix2struct", "instructblipvideo", "llava", "mistral_large4"])
def test_rows_of_a_batch_are_what_each_is_alone(name: str) -> None:
    """Scores and answers; batches of such as answer otherwise in one are run row by row."""
    tiny, vlm = wrapped(name)
    questions = ["who?", "what is written in the first line of this page, and who wrote it?"]
    images = [picture(1), picture(2)]
    options = {"max_new_tokens": 3, "mode": "none"}
    together = vlm.ask_many(images, questions, **options)
    alone = [vlm.ask(image, question, **options) for image, question in zip(images, questions, strict=True)]
    assert [one.text for one in together] == [one.text for one in alone]
    assert [one.certainty for one in together] == pytest.approx([one.certainty for one in alone], rel=1e-4)
    assert vlm.answer_many(images, questions, 3) == [
        vlm.answer_many([image], [question], 3)[0] for image, question in zip(images, questions, strict=True)
    ]
    if tiny.no_grid is None:
        found = vlm.attend_many(images, questions)
        for one, image, question in zip(found, images, questions, strict=True):
            assert np.abs(one.scores - vlm.attend(image, question).scores).max() <= 2e-6


def test_rows_are_run_one_by_one_where_batches_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny, vlm = wrapped("pix2struct")
    assert support.batches_differ("pix2struct")
    assert not support.batches_differ("llava")
    sizes: list[int] = []
    generate = tiny.model.generate

    def counted(**inputs: Any) -> Any:
        sizes.append(len(inputs["flattened_patches"]))
        return generate(**inputs)

    monkeypatch.setattr(tiny.model, "generate", counted)
    vlm.ask_many([picture(1), picture(2)], ["a", "b"], mode="none")
    assert sizes == [1, 1]


def test_a_decoder_that_does_not_see_the_picture_is_refused() -> None:
    """BLIP's for questions looks at the encoded question: its attention says nothing of the picture."""
    tiny, _ = wrapped("blip")
    config = hf.BlipConfig(text_config=tiny.model.config.text_config, vision_config=tiny.model.config.vision_config)
    model = hf.BlipForQuestionAnswering(config)
    with pytest.raises(UnsupportedModelError, match=r"BlipForConditionalGeneration.*attend_with"):
        vea.wrap(model, tiny.processor)
    with pytest.raises(UnsupportedModelError, match="encoded question"):
        vea.capture(model)
