"""The embedded model: its files, its pictures, and how well it reads and looks, on pictures it never saw."""

from __future__ import annotations

import json
import math
from random import Random

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score
from transformers import AutoModelForImageTextToText, AutoProcessor, LlavaForConditionalGeneration

from vea_sdk import tiny
from vea_sdk.errors import InvalidInputError
from vea_sdk.prompts import HIGHLIGHT_PROMPT, PLAIN_PROMPT
from vea_sdk.tiny.fields import all_fields

N_QUESTIONS = 60
HELD_OUT = 5_000  # seeds from here on: training starts at 1,000,000, profiling at 10,000


@pytest.fixture(scope="module")
def model():
    return AutoModelForImageTextToText.from_pretrained(tiny.checkpoint(), attn_implementation="eager")


@pytest.fixture(scope="module")
def processor():
    return AutoProcessor.from_pretrained(tiny.checkpoint())


@pytest.fixture(scope="module")
def held_out():
    return [Random(seed).choice(tiny.draw(seed)) for seed in range(HELD_OUT, HELD_OUT + N_QUESTIONS)]


def prompt_inputs(processor, images, prompts):
    turns = [[{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt}]}] for prompt in prompts]
    texts = [processor.apply_chat_template(turn, add_generation_prompt=True) for turn in turns]
    return processor(images=images, text=texts, padding=True, return_tensors="pt")


def test_checkpoint_is_small_and_complete(model):
    folder = tiny.checkpoint()
    assert (folder / "model.safetensors").stat().st_size <= 9_000_000
    assert sum(p.numel() for p in model.parameters()) <= 4_000_000
    assert isinstance(model, LlavaForConditionalGeneration)
    assert model.dtype == torch.float32
    for name in ("README.md", "LICENSE", "generation_config.json", "tokenizer.json", "vea_profile.json"):
        assert (folder / name).stat().st_size > 0, name


def test_profile_names_the_best_layers():
    profile = json.loads((tiny.checkpoint() / "vea_profile.json").read_text())
    count = math.ceil(profile["fraction"] * len(profile["auroc"]))
    best = sorted(range(len(profile["auroc"])), key=lambda layer: -profile["auroc"][layer])[:count]
    assert profile["layers"] == sorted(best)
    assert profile["n_samples"] >= 100


def test_tokenizer_spells_any_text(processor):
    text = "Größe 12×7? «ничего» 図 <b>\n\tEND  two spaces"
    assert processor.tokenizer.decode(processor.tokenizer.encode(text, add_special_tokens=False)) == text


@pytest.mark.parametrize("size", [(672, 672), (640, 300), (90, 500), (1, 1)])
def test_processor_takes_any_size(processor, size):
    inputs = prompt_inputs(processor, [Image.new("RGB", size)], ["What is the total?"])
    assert inputs["pixel_values"].shape == (1, 3, 224, 224)
    assert (inputs["input_ids"] == processor.image_token_id).sum() == 196


def test_processor_resizes_as_the_training_did(processor):
    image = tiny.compose(HELD_OUT).image
    small = np.asarray(image.resize((224, 224), Image.Resampling.BICUBIC), np.float32)
    pixels = processor.image_processor(image, return_tensors="np")["pixel_values"][0]
    np.testing.assert_allclose(pixels, (small / 255 - 0.5).transpose(2, 0, 1) / 0.5, atol=1e-6)


def test_same_seed_same_picture():
    first, second, other = tiny.compose(3), tiny.compose(3), tiny.compose(4)
    assert first.image.tobytes() == second.image.tobytes()
    assert (first.questions, first.values, first.boxes) == (second.questions, second.values, second.boxes)
    assert first.image.tobytes() != other.image.tobytes()


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_boxes_hold_the_ink_of_the_value(kind):
    for seed in range(5):
        picture = tiny.compose(seed, kind)
        for entry, (x0, y0, x1, y1) in enumerate(picture.boxes):
            blanked = tiny.compose(seed, kind, hide=entry)
            changed = (np.asarray(picture.image) != np.asarray(blanked.image)).any(-1)
            rows, columns = changed.any(1).nonzero()[0], changed.any(0).nonzero()[0]
            assert len(rows), picture.values[entry]
            # Tight above and below; at the sides a narrow glyph such as 1 leaves its bearing, up to 10 pixels.
            drawn = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
            np.testing.assert_allclose(drawn[1::2], (y0, y1), atol=2)
            np.testing.assert_allclose(drawn[::2], (x0, x1), atol=10)
            assert x0 <= drawn[0]
            assert y0 <= drawn[1]
            assert drawn[2] <= x1
            assert drawn[3] <= y1


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_entries_fit_and_do_not_touch(kind):
    for seed in range(40):
        picture = tiny.compose(seed, kind)
        assert len(set(picture.questions)) == len(picture.questions) >= 3
        for i, (x0, y0, x1, y1) in enumerate(picture.boxes):
            assert 0 <= x0 < x1 <= picture.image.width
            assert 0 <= y0 < y1 <= picture.image.height
            assert all(x1 <= a or c <= x0 or y1 <= b or d <= y0 for a, b, c, d in picture.boxes[:i])


def test_answers_cannot_be_guessed_from_the_question():
    seen: dict[str, list[str]] = {}
    for seed in range(600):
        for field, value in zip(*[getattr(tiny.compose(seed), name) for name in ("fields", "values")], strict=True):
            seen.setdefault(field.label, []).append(value)
    assert set(seen) == {field.label for field in all_fields()}
    for label, values in seen.items():
        commonest = max(values.count(value) for value in set(values))
        assert commonest / len(values) < 0.15, (label, values)


def test_absent_question_is_about_nothing_on_the_picture():
    for seed in range(40):
        *present, absent = tiny.draw(seed, absent=True)
        assert absent.answers == (tiny.ABSENT,)
        assert absent.boxes == ()
        picture = tiny.compose(seed)
        assert not any(absent.question.rstrip("?.").endswith(f" {field.phrase}") for field in picture.fields)
        assert [s.answers[0] for s in present] == list(picture.values)


def test_unknown_kind_is_refused():
    with pytest.raises(InvalidInputError, match=r"passport.*receipt"):
        tiny.draw(0, "passport")


def test_degradations_keep_size_and_follow_their_formula():
    image = tiny.compose(1).image
    pixels = np.asarray(image, np.float64)
    flat = np.asarray(tiny.low_contrast(image, 0.25), np.float64)
    np.testing.assert_allclose(flat, pixels.mean() + 0.25 * (pixels - pixels.mean()), atol=1.01)
    assert tiny.noise(image, 7).tobytes() == tiny.noise(image, 7).tobytes() != tiny.noise(image, 8).tobytes()
    covered = (np.asarray(tiny.mask(image, 3, share=0.3)) != np.asarray(image)).any(-1).mean()
    assert 0.2 < covered < 0.4
    assert tiny.noise(image, 0, strength=0.0).tobytes() == tiny.low_contrast(image, 1.0).tobytes() == image.tobytes()
    with pytest.raises(InvalidInputError, match=r"1\.5"):
        tiny.mask(image, 0, share=1.5)


@pytest.fixture(scope="module")
def spoken(model, processor, held_out):
    inputs = prompt_inputs(
        processor, [s.image for s in held_out], [PLAIN_PROMPT.format(question=s.question) for s in held_out]
    )
    with torch.no_grad():
        out = model.generate(**inputs, max_new_tokens=20, do_sample=False)
    new = out[:, inputs["input_ids"].shape[1] :]
    assert (new == processor.tokenizer.eos_token_id).any(1).all(), "every answer stops by itself"
    return processor.batch_decode(new, skip_special_tokens=True)


def test_reads_held_out_pictures(spoken, held_out):
    right = [said.strip().lower() == s.answers[0].lower() for said, s in zip(spoken, held_out, strict=True)]
    assert np.mean(right) >= 0.85


def test_looks_where_the_answer_stands(model, processor, held_out):
    cell = held_out[0].image.width / 14
    edges = np.arange(15) * cell
    scores = []
    for sample in held_out:
        inputs = prompt_inputs(processor, [sample.image], [PLAIN_PROMPT.format(question=sample.question)])
        with torch.no_grad():
            attentions = model(**inputs, output_attentions=True).attentions
        tokens = inputs["input_ids"][0] == processor.image_token_id
        x0, y0, x1, y1 = sample.boxes[0]
        truth = np.outer((edges[:-1] < y1) & (edges[1:] > y0), (edges[:-1] < x1) & (edges[1:] > x0)).ravel()
        scores.append([roc_auc_score(truth, layer[0].mean(0)[-1][tokens]) for layer in attentions])
    assert np.mean(scores, 0).max() >= 0.90


def test_answers_the_picture_not_the_question(model, processor, held_out):
    """The same question about another picture of its kind gets another answer."""
    first, second = tiny.draw(HELD_OUT, "invoice")[0], None
    label = tiny.compose(HELD_OUT, "invoice").fields[0].label
    for seed in range(HELD_OUT + 1, HELD_OUT + 60):
        picture = tiny.compose(seed, "invoice")
        found = [i for i, field in enumerate(picture.fields) if field.label == label]
        if found:
            second = tiny.draw(seed, "invoice")[found[0]]
            break
    prompts = [HIGHLIGHT_PROMPT.format(question=first.question)] * 2
    with torch.no_grad():
        inputs = prompt_inputs(processor, [first.image, second.image], prompts)
        out = model.generate(**inputs, max_new_tokens=20, do_sample=False)
    new = out[:, inputs["input_ids"].shape[1] :]
    answers = processor.batch_decode(new, skip_special_tokens=True)
    assert [a.strip().lower() for a in answers] == [first.answers[0].lower(), second.answers[0].lower()]


def test_demo_sample_is_stable():
    sample = tiny.demo_sample()
    assert sample.image.tobytes() == tiny.demo_sample().image.tobytes()
    assert len(sample.boxes) == len(sample.answers) == 1
