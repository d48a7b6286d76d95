"""The analysis against Transformers' eager attention in float64, counting by hand, and its own files."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from families import FAMILIES
from PIL import Image
from sklearn.metrics import roc_auc_score

import vea_sdk as vea
from vea_sdk import tiny
from vea_sdk.errors import InvalidInputError
from vea_sdk.evaluation.analysis import Analysis, Look, analyze, write
from vea_sdk.evaluation.analysis.summaries import Outcomes, curves, misplaced, summary
from vea_sdk.evaluation.analysis.tables import histogram, tables
from vea_sdk.evaluation.layers import layer_figures

COUNT = 10


@pytest.fixture(scope="module")
def samples() -> list[vea.Sample]:
    """Held-out pictures under heavy noise, so that some answers are wrong; the last has no box, one is all evidence."""
    drawn = [replace(Random(seed).choice(tiny.draw(seed)), id=f"s{seed}") for seed in range(COUNT)]
    spoiled = [replace(one, image=tiny.noise(one.image, seed, 0.6)) for seed, one in enumerate(drawn)]
    spoiled[-1] = replace(spoiled[-1], boxes=())
    spoiled[-2] = replace(spoiled[-2], boxes=((0.0, 0.0, 672.0, 672.0),))
    return spoiled


@pytest.fixture(scope="module")
def vlm() -> vea.VLM:
    return vea.load(tiny.checkpoint(), device="cpu")


@pytest.fixture(scope="module")
def found(vlm: vea.VLM, samples: list[vea.Sample]) -> Analysis:
    return analyze(vlm, samples, batch=4)


def test_every_sample_against_eager_attention(vlm: vea.VLM, samples: list[vea.Sample], found: Analysis) -> None:
    model = vea.load(tiny.checkpoint(), device="cpu", attn_implementation="eager").model.double()
    assert (found.layers, found.grounding) == ((0, 1, 2, 3), (2,))
    for sample, look in zip(samples, found.looks, strict=True):
        text = vlm.plain_prompt.format(question=sample.question)
        turn = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}]
        prompt = vlm.processor.apply_chat_template(turn, add_generation_prompt=True)
        inputs = vlm.processor(images=sample.image, text=prompt, return_tensors="pt").to(torch.float64)
        with torch.no_grad():
            weights = model(**inputs, output_attentions=True).attentions
        rows = torch.stack([layer[0].mean(0)[-1] for layer in weights]).numpy()  # [layers, prompt]
        image = (inputs["input_ids"][0] == model.config.image_token_id).numpy()
        sections = {"image": image, "text": ~image}
        evidence = np.zeros((14, 14), bool)  # patches of 48 pixels
        for x0, y0, x1, y1 in sample.boxes:
            evidence[int(y0 // 48) : int(np.ceil(y1 / 48)), int(x0 // 48) : int(np.ceil(x1 / 48))] = True
        if evidence.any():
            sections["evidence"] = np.zeros_like(image)
            sections["evidence"][np.flatnonzero(image)[evidence.ravel()]] = True
            if not evidence.all():
                sections["non_evidence"] = image & ~sections["evidence"]
        assert set(look.rapt) == set(sections)
        for name, section in sections.items():
            expected = rows[:, section].mean(1) / rows.mean(1)
            np.testing.assert_allclose(look.rapt[name], expected, rtol=1e-4, atol=1e-6)
        if evidence.any() and not evidence.all():
            expected = [roc_auc_score(evidence.ravel(), row[image]) for row in rows]
            np.testing.assert_allclose(look.layer_auroc, expected, atol=1e-3)
            assert look.auroc == pytest.approx(look.layer_auroc[2], abs=1e-5)  # nothing there to denoise
            assert look.hit == evidence.ravel()[rows[2][image].argmax()]
        else:
            assert look.auroc is look.layer_auroc is look.hit is None


def test_answers_are_those_of_asking(vlm: vea.VLM, samples: list[vea.Sample], found: Analysis) -> None:
    for sample, look in list(zip(samples, found.looks, strict=True))[::3]:
        answer = vlm.ask(sample.image, sample.question, max_new_tokens=32)
        assert (look.baseline, look.highlighted) == (answer.baseline, answer.text)
        assert look.right == (answer.baseline.lower() == sample.answers[0].lower())


def test_an_interrupted_run_goes_on(vlm: vea.VLM, samples: list[vea.Sample], found: Analysis, tmp_path: Path) -> None:
    def interrupt(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        analyze(vlm, samples, batch=4, results=tmp_path / "rows.jsonl", progress=interrupt)
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == 1 + 4
    assert analyze(vlm, samples, batch=4, results=tmp_path / "rows.jsonl").looks == found.looks


def test_batches_change_nothing(vlm: vea.VLM, samples: list[vea.Sample], found: Analysis) -> None:
    alone = analyze(vlm, samples[:3], batch=1, highlight=False)
    for one, expected in zip(alone.looks, found.looks, strict=False):
        assert (one.baseline, one.highlighted, one.right_highlighted) == (expected.baseline, None, None)
        for section, values in one.rapt.items():
            np.testing.assert_allclose(values, expected.rapt[section], rtol=1e-4, atol=1e-6)
    assert summary(alone)["outcomes"]["all"]["right_highlighted"] is None


def look(name: str, auroc: float | None, right: bool, again: bool, rapt: float = 1.0) -> Look:
    layers = None if auroc is None else (auroc, 0.5)
    said, repeated = ("yes" if right else "no"), ("yes" if again else "no")
    sections, hit = {"image": (rapt, 2 * rapt)}, None if auroc is None else auroc > 0.8
    return Look(name, "", "?", ("yes",), said, right, repeated, again, auroc, hit, layers, sections)


@pytest.fixture
def made() -> Analysis:
    """Five samples whose figures are known."""
    looks = (
        look("a", 0.9, right=True, again=False, rapt=1.0),
        look("b", 0.2, right=False, again=True, rapt=2.0),
        look("c", 0.1, right=False, again=False, rapt=4.0),
        look("d", 0.49, right=True, again=True, rapt=3.0),
        look("e", None, right=False, again=False, rapt=6.0),
    )
    return Analysis((0, 1), (0,), looks)


def test_summary_counts(made: Analysis) -> None:
    figures = summary(made)
    assert (figures["samples"], figures["without_evidence"], figures["below_half"]) == (5, 1, 3 / 4)
    assert figures["auroc"] == pytest.approx(np.mean([0.9, 0.2, 0.1, 0.49]))
    assert figures["outcomes"]["all"] == {"n": 5, "right": 2, "right_highlighted": 2, "mended": 1, "spoiled": 1}
    below = {"n": 3, "right": 1, "right_highlighted": 2, "mended": 1, "spoiled": 0}
    assert figures["outcomes"]["auroc_below_half"] == below
    assert figures["outcomes"]["top_patch_on_evidence"]["n"] == figures["outcomes"]["auroc_from_half"]["n"] == 1
    assert figures["outcomes"]["top_patch_elsewhere"] == below
    assert [one.id for one in misplaced(made)] == ["c", "b", "d"]
    assert Outcomes.of([]) == Outcomes(0, 0, 0, 0, 0)


def test_curves_are_means_with_intervals(made: Analysis) -> None:
    points = {(p.figure, p.answers, p.layer): p for p in curves(made)}
    wrong = points["rapt_image", "wrong", 1]
    values = np.array([4.0, 8.0, 12.0])
    half = 1.96 * values.std(ddof=1) / np.sqrt(3)
    assert (wrong.n, wrong.mean) == (3, 8.0)
    assert (wrong.low, wrong.high) == (pytest.approx(8 - half), pytest.approx(8 + half))
    assert points["auroc", "right", 0].mean == pytest.approx((0.9 + 0.49) / 2)
    assert points["auroc", "all", 0].n == 4
    assert not [key for key in points if key[0] == "rapt_evidence"]
    single = replace(made, looks=made.looks[:1])
    assert {(p.low, p.high) for p in curves(single)} == {(None, None)}


def test_tables_read_back(made: Analysis) -> None:
    found = {name: list(csv.DictReader(text.splitlines())) for name, text in tables(made).items()}
    assert [row["id"] for row in found["samples.csv"]] == ["a", "b", "c", "d", "e"]
    assert found["samples.csv"][4]["auroc"] == ""
    assert [(row["id"], row["right_highlighted"]) for row in found["misplaced.csv"]] == [
        ("c", "False"), ("b", "True"), ("d", "True"),
    ]  # fmt: skip
    assert len(found["curves.csv"]) == len(curves(made))
    bins = [(float(row["low"]), int(row["right"]), int(row["wrong"])) for row in found["auroc-histogram.csv"]]
    counted = {low: counts for low, *counts in bins if any(counts)}
    assert counted == {0.1: [0, 1], 0.2: [0, 1], 0.45: [1, 0], 0.9: [1, 0]}
    assert sum(row[2] + row[3] for row in histogram(made.looks)) == 4


def test_which_sample_is_shown(vlm: vea.VLM, samples: list[vea.Sample], found: Analysis) -> None:
    wrong = [one for one in found.looks if not one.right and one.auroc is not None]
    assert wrong, "the test wants a wrong answer"
    best = max(wrong, key=lambda one: one.auroc or 0)
    sample, everywhere = found.shown
    assert (sample.id, everywhere.layers) == (best.id, found.layers)
    assert analyze(vlm, samples[:2], show="s1", highlight=False).shown[0].id == "s1"


def test_bad_input(vlm: vea.VLM, samples: list[vea.Sample]) -> None:
    for given, options, message in (
        ([], {}, "no sample"),
        (samples[:1], {"batch": 0}, "batch=0"),
        ([samples[0], samples[0]], {}, "'s0'"),
        ([replace(samples[0], answers=())], {}, "'s0' has no accepted answer"),
        (samples[:1], {"show": "nobody"}, "'nobody'"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            analyze(vlm, given, **options)


def test_figures_and_their_absence(found: Analysis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    written = write(found, tmp_path / "all")
    pictures = [path for path in written if path.suffix == ".png"]
    assert {path.name for path in pictures} == {"rapt.png", "auroc-histogram.png", "layers.png"}
    for path in pictures:
        with Image.open(path) as shown:
            assert np.asarray(shown.convert("L")).std() > 5  # something is drawn
    assert json.loads((tmp_path / "all" / "summary.json").read_text()) == summary(found)
    assert "layers.png" not in {path.name for path in write(replace(found, shown=None), tmp_path / "none")}
    monkeypatch.setattr("vea_sdk.evaluation.analysis.files.can_draw", lambda: False)
    assert {path.suffix for path in write(found, tmp_path / "tables")} == {".csv", ".json"}


def test_a_model_without_rapt(tmp_path: Path) -> None:
    """Cross-attention rows hold the image alone: no section, and the rest still stands."""
    family = FAMILIES["llava"]()
    vlm = vea.wrap(family.model, family.processor, layers=[1])
    image = Image.effect_mandelbrot((90, 60), (-2, -1, 1, 1), 20).convert("RGB")
    sample = vea.Sample(image, "what?", ("a",), ((0, 0, 30, 30),))
    (everywhere,) = vlm.attend_many([image], ["what?"], layers="all")
    everywhere.stats.clear()
    labels = vea.metrics.patch_labels(everywhere.layout, sample.boxes)
    figures = layer_figures(everywhere, labels)
    assert figures["rapt"] == {}
    assert len(figures["auroc"]) == 4
    one = replace(look("0", 0.5, right=False, again=False), layer_auroc=tuple(figures["auroc"]), rapt={})
    made = Analysis(everywhere.layers, (1,), (one,), (sample, everywhere))
    assert {p.figure for p in curves(made)} == {"auroc"}
    assert write(made, tmp_path)


def test_command(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("analyze", "--model", "tiny", "--samples", 4, "--device", "cpu", "--out", tmp_path)
    code, out, err = run(*arguments, "--json")
    assert code == 0, err
    fields = json.loads(out)
    assert (fields["samples"], fields["grounding"]) == (4, [2])
    assert fields["auroc"] > 0.9
    assert all(Path(path).is_file() for path in fields["files"])
    monkeypatch.setattr("vea_sdk.evaluation.analysis.files.can_draw", lambda: False)
    code, out, err = run(*arguments, "--no-highlight", "--degrade", "mask:0.3", "--out", tmp_path / "masked")
    assert code == 0, err
    assert "vea-sdk[viz]" in err
    assert "below_half" in out
    assert run("analyze", "--model", "tiny", "--samples", 0)[0] == 2
    code, out, err = run(*arguments, "--show", "nobody", "--json")
    assert (code, out) == (1, "")
    assert "'nobody'" in err
