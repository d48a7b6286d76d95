"""One model looks, another answers: evidence from the first, answers and inputs of the second, whatever their sizes."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from families import FAMILIES
from PIL import Image

import vea_sdk as vea
from vea_sdk.errors import InvalidInputError, UnsupportedModelError
from vea_sdk.evidence.fused import gain_maps
from vea_sdk.pipeline.conversation import one_turn
from vea_sdk.pipeline.replay import replaying

# Squares of 48 pixels or of 64, tiles, sizes by aspect ratio: each sees a picture at another size than its partner.
PAIRS = [("gemma3", "llava"), ("llava_next", "qwen2_5_vl"), ("qwen2_vl", "internvl"), ("llava", "gemma3")]
pairs = pytest.mark.parametrize(("answerer", "attender"), PAIRS)


def picture(seed: int = 0, width: int = 300, height: int = 200) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 200, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def wrapped(name: str, **options: Any) -> vea.VLM:
    family = FAMILIES[name]()
    return vea.wrap(family.model, family.processor, **options)


def both(answerer: str, attender: str, **options: Any) -> tuple[vea.VLM, vea.VLM]:
    other = wrapped(attender, layers=[1, 2])
    return wrapped(answerer, attend_with=other, **options), other


@pairs
def test_the_other_model_attends(answerer: str, attender: str) -> None:
    vlm, other = both(answerer, attender)
    assert vlm.layers == other.layers == (1, 2)
    mine, theirs = vlm.attend(picture(), "what?"), other.attend(picture(), "what?")
    assert np.array_equal(mine.layer_scores, theirs.layer_scores)
    alone = wrapped(answerer, layers=[0]).attend(picture(), "what?")
    assert mine.layout.input_size == theirs.layout.input_size != alone.layout.input_size
    first, second = vlm.attend([picture(1), picture(2, 70, 110)], "compare")
    assert (first.map().shape, second.map().shape) == ((200, 300), (110, 70))
    for one, expected in zip(
        vlm.attend_many([picture(1), picture(2)], ["what?", "and why is that?"], layers="all"),
        other.attend_many([picture(1), picture(2)], ["what?", "and why is that?"], layers="all"),
        strict=True,
    ):
        assert np.array_equal(one.layer_scores, expected.layer_scores)


@pairs
def test_the_wrapped_model_answers(answerer: str, attender: str) -> None:
    vlm, other = both(answerer, attender, sigma=0.2, alpha=0.1)
    answer = vlm.ask(picture(), "what is it?", max_new_tokens=4)
    alone = wrapped(answerer, layers=[0])
    assert answer.baseline == alone.ask(picture(), "what is it?", mode="none", max_new_tokens=4).text
    assert np.array_equal(answer.evidence.scores, other.attend(picture(), "what is it?").scores)
    assert (answer.evidence.sigma, answer.evidence.alpha) == (0.2, 0.1)
    shown = vea.evidence.highlight(picture(), answer.evidence.map(), 0.1)
    assert np.array_equal(np.asarray(answer.highlighted), np.asarray(shown))
    prompt = vlm.highlight_prompt.format(question="what is it?")
    assert answer.text == alone.answer_many([shown], [prompt], max_new_tokens=4)[0]
    assert list(answer.timings) == ["prepare", "baseline", "evidence", "answer"]
    once = vlm.ask(picture(), "what is it?", mode="none", max_new_tokens=4)
    assert np.array_equal(once.evidence.scores, answer.evidence.scores)
    assert once.highlighted is None


@pairs
def test_tensors_are_highlighted_on_the_canvases_of_the_model_that_answers(answerer: str, attender: str) -> None:
    """Against the slow way, highlighting the picture: to two grey levels, and not by the other model's canvases."""
    vlm, _ = both(answerer, attender, alpha=0.8)
    evidence = vlm.attend(picture(), "what?")
    processor = replaying(vlm.processor)
    plain_turn, highlighted = one_turn([picture()], "?"), one_turn([evidence.highlight()], "?")
    inputs = vlm.inputs([plain_turn], processor)
    canvases = [vlm.adapter.canvases(one.layout, processor) for one in vlm.place(inputs, [plain_turn])[0]]
    gains = [gain_maps(evidence.map(), canvases[0], 0.8, torch.device("cpu"))]
    fused, slow, plain = (
        vlm.inputs([plain_turn], processor, gains)["pixel_values"],
        vlm.inputs([highlighted])["pixel_values"],
        vlm.inputs([plain_turn])["pixel_values"],
    )
    level = 1 / 255 / min(vlm.processor.image_processor.image_std)
    assert (fused - slow).abs().max() <= 2.01 * level
    assert (plain - slow).abs().max() > 20 * level  # it is highlighted at all
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        answer = vlm.ask(picture(), "what is it?", max_new_tokens=3, highlight_on="tensor")
    assert isinstance(answer.text, str)


def test_a_model_that_no_adapter_serves_may_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    from vea_sdk import adapters

    other = wrapped("llava", layers=[1])

    def unknown(model: torch.nn.Module) -> None:
        raise UnsupportedModelError("no adapter serves it")

    monkeypatch.setattr(adapters, "find", unknown)
    vlm = wrapped("gemma3", attend_with=other)
    assert vlm.ask(picture(), "what?", max_new_tokens=2).evidence.layers == (1,)
    with pytest.raises(UnsupportedModelError, match="no adapter"):
        vlm.ask(picture(), "what?", highlight_on="tensor")
    with pytest.raises(UnsupportedModelError, match="no adapter"):
        wrapped("gemma3", layers=[0])


def test_a_chain_ends_at_the_one_that_looks() -> None:
    vlm, other = both("gemma3", "llava")
    assert wrapped("internvl", attend_with=vlm).attend_with is other


def test_bad_input() -> None:
    other = wrapped("llava", layers=[1])
    with pytest.raises(InvalidInputError, match=r"layers=\[0\].*the model that attends"):
        wrapped("gemma3", layers=[0], attend_with=other)
    with pytest.raises(InvalidInputError, match="wrapped model, not a LlavaForConditionalGeneration"):
        wrapped("gemma3", attend_with=other.model)


def test_checkpoints(tmp_path: Path, run: Any) -> None:
    for name in ("llava", "gemma3"):
        FAMILIES[name]().model.save_pretrained(tmp_path / name)
        FAMILIES[name]().processor.save_pretrained(tmp_path / name)
    profile = {"model": "tiny", "layers": [1], "source": "this test"}
    (tmp_path / "llava" / "vea_profile.json").write_text(json.dumps(profile))
    vlm = vea.load(tmp_path / "gemma3", device="cpu", attend_with=tmp_path / "llava", sigma=0.3)
    assert (vlm.model.config.model_type, vlm.attend_with.model.config.model_type) == ("gemma3", "llava")
    assert vlm.layers == (1,)
    expected = vlm.ask(picture(), "what?", max_new_tokens=3)

    picture().save(tmp_path / "noise.png")
    arguments = [tmp_path / "noise.png", "what?", "--model", tmp_path / "gemma3", "--attend-with", tmp_path / "llava"]
    arguments += ["--device", "cpu", "--max-new-tokens", 3, "--out", tmp_path, "--json"]

    def ask(*more: object) -> dict[str, Any]:
        code, out, err = run("ask", *arguments, *more)
        assert code == 0, err
        return dict(json.loads(out))

    fields = ask()
    assert (fields["layers"], fields["baseline"]) == ([1], expected.baseline)
    assert ask("--layers", "2,3")["layers"] == [2, 3]
