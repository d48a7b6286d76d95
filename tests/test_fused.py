"""Highlighting pixel_values against highlighting the picture and preparing it anew."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from families import FAMILIES, TinyFamily, llava_processor
from PIL import Image

import vea_sdk as vea
from vea_sdk.adapters import Adapter
from vea_sdk.adapters.llava import LlavaAdapter
from vea_sdk.errors import GeometryError, InvalidInputError, UnsupportedModelError
from vea_sdk.evidence.fused import STEEPEST, Inexact, gain_maps, highlight_tensor, steepness
from vea_sdk.pipeline.conversation import one_turn
from vea_sdk.pipeline.replay import replaying

names = pytest.mark.parametrize("name", FAMILIES)


def picture(seed: int = 0, width: int = 300, height: int = 200, white: int = 200) -> Image.Image:
    """Noise: the hardest case for swapping resize and product. Below ``white``, so that nothing is cut off."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, white, (height, width, 3), dtype=np.uint8))


def wrapped(family: TinyFamily, **options: Any) -> vea.VLM:
    return vea.wrap(family.model, family.processor, **({"layers": [1, 2], "alpha": 0.8} | options))


def grey(pixel_values: torch.Tensor, processor: Any) -> torch.Tensor:
    """Undo rescaling and normalisation."""
    real = processor.image_processor
    mean, deviation = (torch.tensor(v).view(-1, 1, 1) for v in (real.image_mean, real.image_std))
    if pixel_values.ndim == 2:
        pixel_values = pixel_values.view(len(pixel_values), 3, -1, real.patch_size**2)
    return (pixel_values.cpu().float() * deviation + mean) * 255


def both_ways(family: TinyFamily, pictures: list[Image.Image], **options: Any) -> tuple[Any, Any]:
    """Model inputs of the second question: from highlighted pictures, and from highlighted tensors."""
    vlm = wrapped(family, **options)
    evidence = vlm.attend(pictures, "what is it?")
    processor = replaying(family.processor)
    first = [one_turn(pictures, "what is it?")]
    inputs = vlm.inputs(first, processor)
    canvases = [vlm.adapter.canvases(one.layout, processor) for one in vlm.place(inputs, first)[0]]
    gains = [gain_maps(e.map(), c, e.alpha, torch.device("cpu")) for e, c in zip(evidence, canvases, strict=True)]
    text = "look again, closely: what is it?"
    slow = vlm.inputs([one_turn([one.highlight() for one in evidence], text)])
    fused = vlm.inputs([one_turn(pictures, text)], processor, gains)
    return slow, fused


def assert_alike(family: TinyFamily, slow: Any, fused: Any) -> None:
    assert set(slow) == set(fused)
    for key in set(slow) - {"pixel_values"}:
        assert torch.equal(torch.as_tensor(slow[key]), torch.as_tensor(fused[key])), key
    difference = (grey(slow["pixel_values"], family.processor) - grey(fused["pixel_values"], family.processor)).abs()
    assert difference.max() <= 2.01
    assert (difference > 1.01).float().mean() < 0.01


@names
@pytest.mark.parametrize(("width", "height"), [(300, 200), (57, 91), (640, 480)])
def test_both_ways_give_the_same_inputs(name: str, width: int, height: int) -> None:
    family = FAMILIES[name]()
    shown = picture(width=width, height=height)
    slow, fused = both_ways(family, [shown])
    assert_alike(family, slow, fused)
    plain = grey(wrapped(family).inputs([one_turn([shown], "what?")])["pixel_values"], family.processor)
    assert (plain - grey(fused["pixel_values"], family.processor)).max() > 20  # it is highlighted at all


@names
def test_several_pictures(name: str) -> None:
    family = FAMILIES[name]()
    slow, fused = both_ways(family, [picture(1), picture(2, 170, 310)])
    assert_alike(family, slow, fused)


def test_pan_and_scan_crops() -> None:
    family = FAMILIES["gemma3"]()
    options = {"do_pan_and_scan": True, "pan_and_scan_min_crop_size": 256}
    shown = picture(0, 900, 300)
    inputs = family.inputs(shown, **options)
    adapter = vea.adapters.find(family.model)
    (layout,) = adapter.layouts(inputs, [(300, 900)], family.processor)
    assert len(layout.grids) == len(inputs["pixel_values"]) > 1
    scores = np.random.default_rng(0).random(layout.n_tokens, dtype=np.float32)
    pixel_map = vea.evidence.layout_map(scores, layout)
    gains = gain_maps(pixel_map, adapter.canvases(layout, family.processor), 0.8, torch.device("cpu"))
    fused = dict(inputs) | {"pixel_values": highlight_tensor(inputs["pixel_values"], [gains], family.processor)}
    assert_alike(family, dict(family.inputs(vea.evidence.highlight(shown, pixel_map, 0.8), **options)), fused)


@names
def test_ask_gives_an_answer_alike(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    family = FAMILIES[name]()
    vlm = wrapped(family)
    slow = vlm.ask(picture(), "what is it?", max_new_tokens=3)
    calls = []
    kind = type(family.processor.image_processor)
    preprocess = kind.preprocess
    monkeypatch.setattr(kind, "preprocess", lambda *args, **kwargs: calls.append(1) or preprocess(*args, **kwargs))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        fused = vlm.ask(picture(), "what is it?", max_new_tokens=3, highlight_on="tensor")
    assert len(calls) == 1
    assert fused.baseline == slow.baseline
    assert isinstance(fused.text, str)
    assert np.array_equal(fused.evidence.scores, slow.evidence.scores)
    assert np.array_equal(np.asarray(fused.highlighted), np.asarray(slow.highlighted))
    assert list(fused.timings) == list(slow.timings)


def test_white_pictures_are_prepared_anew_where_the_filter_overshoots() -> None:
    squares = (np.indices((200, 300)) // 20).sum(0) % 2 * 255
    shown = Image.fromarray(np.repeat(squares[..., None], 3, axis=-1).astype(np.uint8))
    for name in ("llava", "gemma3"):  # bicubic, bilinear
        vlm = wrapped(FAMILIES[name]())
        slow = vlm.ask(shown, "what?", max_new_tokens=3)
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always", UserWarning)
            fused = vlm.ask(shown, "what?", max_new_tokens=3, highlight_on="tensor")
        assert any("holds white" in str(w.message) for w in seen) == (name == "llava")
        if name == "llava":
            assert fused.text == slow.text


def test_steep_maps_are_prepared_anew() -> None:
    vlm = wrapped(FAMILIES["gemma3"](), sigma=0.01, alpha=0.0)
    with pytest.warns(UserWarning, match="too steep"):
        fused = vlm.ask(picture(), "what?", max_new_tokens=3, highlight_on="tensor")
    assert fused.text == vlm.ask(picture(), "what?", max_new_tokens=3).text


def test_gains_are_those_of_the_map() -> None:
    from vea_sdk.adapters.canvas import Canvas

    pixel_map = np.random.default_rng(0).random((40, 60), dtype=np.float32)
    whole = Canvas.of((40, 60))
    same, half = gain_maps(pixel_map, [whole, whole.cropped(10, 20, 30, 40)], 0.25, torch.device("cpu"))
    expected = 0.25 + 0.75 * pixel_map
    np.testing.assert_allclose(same.numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(half.numpy(), expected[10:40, 20:60], atol=1e-5)
    assert steepness([same]) == pytest.approx(
        255 * max(np.abs(np.diff(expected, axis=axis)).max() for axis in (0, 1)), rel=1e-3
    )
    with pytest.raises(Inexact, match=f"above {STEEPEST:g}"):
        highlight_tensor(torch.zeros(1, 3, 40, 60), [[same]], FAMILIES["llava"]().processor)


def test_bad_input() -> None:
    family = FAMILIES["llava"]()
    with pytest.raises(InvalidInputError, match="'pixels' is unknown"):
        wrapped(family).ask(picture(), "what?", highlight_on="pixels")  # type: ignore[arg-type]

    class Plain(LlavaAdapter):
        canvases = Adapter.canvases

    with pytest.raises(UnsupportedModelError, match=r'llava.*highlight_on="picture"'):
        wrapped(family, adapter=Plain).ask(picture(), "what?", highlight_on="tensor")
    padding = vea.wrap(family.model, llava_processor(pad=True), layers=[1])
    with pytest.raises(GeometryError, match="pads the picture before"):
        padding.ask(picture(), "what?", highlight_on="tensor")
    flat = torch.full((48, 48), 0.5)
    for values, gains in (((1, 3, 40, 48), [[flat]]), ((2, 3, 48, 48), [[flat]]), ((5, 3), [[flat]]), ((3,), [[flat]])):
        with pytest.raises(GeometryError, match="canvases"):
            highlight_tensor(torch.zeros(values), gains, FAMILIES["qwen2_vl"]().processor)


def test_the_processor_stays_as_it_is() -> None:
    family = FAMILIES["internvl"]()
    before = dict(vars(family.processor))
    wrapped(family).ask(picture(), "what?", max_new_tokens=2, highlight_on="tensor")
    assert vars(family.processor) == before
    assert isinstance(family.processor, hf.ProcessorMixin)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU, and torch sees none here")
@names
def test_both_ways_on_a_gpu(name: str) -> None:
    family = FAMILIES[name]()
    try:
        family.model.cuda()
        slow, fused = both_ways(family, [picture()])
        assert fused["pixel_values"].is_cuda
        assert_alike(family, slow, fused)
    finally:
        family.model.cpu()
