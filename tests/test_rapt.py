"""RAPT against Transformers' eager attention, added up in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from families import FAMILIES
from PIL import Image

import vea_sdk as vea
from vea_sdk.errors import InvalidInputError
from vea_sdk.prompts import PLAIN_PROMPT

BOX = (20.0, 10.0, 70.0, 60.0)


def picture(width: int = 120, height: int = 80) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("name", FAMILIES)
def test_sections_of_a_prompt(name: str) -> None:
    family = FAMILIES[name]()
    vlm = vea.wrap(family.model, family.processor, layers="all")
    short, evidence = vlm.attend_many([picture(90, 90), picture()], ["?", "what is written here?"])
    inputs = family.inputs(picture(), PLAIN_PROMPT.format(question="what is written here?"))
    family.model.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            weights = family.model.double()(**inputs.to(torch.float64), output_attentions=True).attentions
    finally:
        family.model.float().set_attn_implementation("sdpa")
    rows = torch.stack([layer[0, :, -1].double().mean(0) for layer in weights]).numpy()  # [layers, prompt]
    is_image = (inputs["input_ids"][0] == family.image_token_id).numpy()
    labels = vea.metrics.patch_labels(evidence.layout, [BOX])
    assert 0 < labels.sum() < len(labels)
    places = np.flatnonzero(is_image)

    def share(chosen: np.ndarray) -> np.ndarray:
        return rows[:, chosen].mean(1) / rows.mean(1)

    stats = evidence.stats
    np.testing.assert_allclose(stats["rapt_image"], share(places), rtol=2e-5)
    np.testing.assert_allclose(stats["rapt_text"], share(np.flatnonzero(~is_image)), rtol=2e-5)
    np.testing.assert_allclose(stats["image_mass"], rows[:, places].sum(1), rtol=2e-5)
    np.testing.assert_allclose(stats["mean"], rows.mean(1), rtol=2e-5)
    for section in (labels, ~labels):
        found = vea.metrics.rapt(evidence.layer_scores, section, stats["mean"])
        np.testing.assert_allclose(found, share(places[section]), rtol=2e-5)
        np.testing.assert_allclose(
            found, vea.metrics.rapt(rows, np.isin(np.arange(len(is_image)), places[section])), rtol=2e-5
        )
    assert not np.allclose(short.stats["mean"], stats["mean"])  # each row of the batch has its own


def test_a_picture_of_several_shares_the_prompt() -> None:
    family = FAMILIES["llava"]()
    first, second = vea.wrap(family.model, family.processor, layers=[1]).attend([picture(), picture(60, 90)], "compare")
    assert first.stats["image_mass"] == pytest.approx(first.scores.sum() + second.scores.sum(), rel=1e-5)
    assert first.to_dict()["stats"]["rapt_image"] == pytest.approx(second.stats["rapt_image"].tolist())


def test_an_even_row_and_errors() -> None:
    assert vea.metrics.rapt([0.25] * 4, [True, False, False, True]) == 1.0
    assert vea.metrics.rapt([0.5, 0.1, 0.2, 0.2], [True, False, False, False]) == 2.0
    assert vea.metrics.rapt(np.ones((2, 0, 3)), [True, False, False]).shape == (2, 0)
    for attention, section, mean, message in (
        ([0.5, 0.5], [False, False], None, "none of the 2 tokens"),
        ([0.5, 0.5], [True], None, "one for each"),
        ([0.5, 0.5], [1, 0], None, "int64"),
        ([0.5, 0.5], [True, False], [0.1], "shape"),
        ([0.5, np.nan], [True, False], None, "NaN"),
        ([0.0, 0.0], [True, False], None, "not positive"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            vea.metrics.rapt(attention, section, mean)
