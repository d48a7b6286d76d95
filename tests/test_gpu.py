"""The corridor on a GPU gives what it gives on the CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from families import FAMILIES
from PIL import Image
from test_capture import check_decoding, single

import vea_sdk as vea
from vea_sdk import _native

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU, and torch sees none here"),
]
names = pytest.mark.parametrize("name", FAMILIES)


def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 120, 3), dtype=np.uint8))


@names
def test_rows_are_those_of_the_cpu(name: str) -> None:
    family = FAMILIES[name]()
    inputs = family.inputs(picture(), "what is it?")
    options = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False}
    with vea.capture(family.model, layers="all", queries="all", top_k=5) as expected:
        tokens = family.model.generate(**inputs, **options)
    try:
        model = family.model.cuda()
        with vea.capture(model, layers="all", queries="all", top_k=5) as session:
            found = model.generate(**inputs.to("cuda"), **options)
    finally:
        family.model.cpu()
    assert torch.equal(found.cpu(), tokens)
    assert session.attention.is_cuda
    # Both are float32; the hidden states differ by the rounding of two matrix libraries, amplified over four layers.
    assert (session.attention.cpu() - expected.attention).abs().max() <= 1e-4
    assert (session.topk.cpu().sum(-1) == 5).all()


@names
def test_decoding_equals_eager_attention_on_the_gpu(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if _native.cuda_problem() is not None:
        pytest.skip(str(_native.cuda_problem()))
    family = FAMILIES[name]()
    try:
        family.model.cuda()
        check_decoding(
            family, single(family).to("cuda"), 1e-4, monkeypatch
        )  # the rounding of two attentions, amplified
    finally:
        family.model.cpu()


@names
def test_the_pipeline_runs_in_bfloat16(name: str) -> None:
    family = FAMILIES[name]()
    layers = [1]  # the first one that sees the image in every family: Gemma 3 begins with a window shorter than that
    expected = vea.wrap(family.model, family.processor, layers=layers).attend(picture(), "what?").scores
    assert np.ptp(expected) > 0
    try:
        family.model.to("cuda", torch.bfloat16)
        answer = vea.wrap(family.model, family.processor, layers=layers).ask(picture(), "what?", max_new_tokens=3)
    finally:
        family.model.to("cpu", torch.float32)
    assert np.corrcoef(answer.evidence.scores, expected)[0, 1] > 0.9
