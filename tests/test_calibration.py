"""Calibration against scikit-learn and loops over the definitions, and the certainty that an evaluation keeps."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from families import FAMILIES
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.calibration import calibration_curve
from sklearn.metrics import roc_auc_score

import vea_sdk as vea
from vea_sdk.errors import InvalidInputError
from vea_sdk.evaluation import Evaluation, evaluate, score
from vea_sdk.evaluation.calibration import (
    aurc,
    certainty_auroc,
    expected_calibration_error,
    find_gate,
    gates,
    reliability,
    risk_at,
    risk_coverage,
    thinned,
)
from vea_sdk.evaluation.plot import draw_certainty
from vea_sdk.evaluation.summary import summarise
from vea_sdk.pipeline.generation import Generated
from vea_sdk.prompts import PLAIN_PROMPT

# Round certainties, of which many tie and lie on the edges of bins, among those that do not.
ANSWERS = st.lists(
    st.tuples(st.one_of(st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.7, 1.0]), st.floats(0, 1)), st.booleans()),
    min_size=1,
    max_size=40,
).map(lambda pairs: ([sure for sure, _ in pairs], [right for _, right in pairs]))


def drawn(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Answers that are right about as often as they are sure."""
    rng = np.random.default_rng(seed)
    sure = rng.beta(2, 1, n)
    return sure, rng.random(n) < sure**1.3


@given(ANSWERS, st.integers(1, 20))
def test_reliability_equals_scikit_learn(answers: tuple[list[float], list[bool]], bins: int) -> None:
    sure, right = answers
    found = reliability(sure, right, bins)
    share, mean = calibration_curve(right, sure, n_bins=bins) if len(set(right)) == 2 else (None, None)
    if share is not None:  # scikit-learn takes two classes only
        assert [one.right for one in found] == pytest.approx(share)
        assert [one.certainty for one in found] == pytest.approx(mean)
    assert sum(one.n for one in found) == len(sure)
    for one in found:
        inside = [c for c in sure if one.low < c <= one.high or c == one.low == 0]
        assert len(inside) == one.n
        assert one.certainty == pytest.approx(np.mean(inside))
    expected = sum(one.n / len(sure) * abs(one.right - one.certainty) for one in found)
    assert expected_calibration_error(sure, right, bins) == pytest.approx(expected)


def test_calibration_error_by_a_loop_over_ten_bins() -> None:
    sure, right = drawn(300)
    expected = 0.0
    for place in range(10):
        inside = [i for i, c in enumerate(sure) if place / 10 < c <= (place + 1) / 10]
        if inside:
            gap = abs(np.mean([float(right[i]) for i in inside]) - np.mean([sure[i] for i in inside]))
            expected += len(inside) / len(sure) * gap
    assert expected_calibration_error(sure, right) == pytest.approx(expected)
    assert expected_calibration_error([0.8] * 5, [1, 1, 1, 1, 0]) == pytest.approx(0)
    assert expected_calibration_error([1.0, 1.0], [False, False]) == 1


@given(ANSWERS)
def test_risk_and_coverage_by_a_loop(answers: tuple[list[float], list[bool]]) -> None:
    sure, right = answers
    points = risk_coverage(sure, right)
    assert [point.threshold for point in points] == sorted(set(sure), reverse=True)
    risk_of = {}
    for point in points:
        kept = [hit for c, hit in zip(sure, right, strict=True) if c >= point.threshold]
        risk_of[point.threshold] = kept.count(False) / len(kept)
        assert point.coverage == pytest.approx(len(kept) / len(sure))
        assert point.risk == pytest.approx(risk_of[point.threshold])
    assert aurc(points) == pytest.approx(np.mean([risk_of[c] for c in sure]))
    order = np.random.default_rng(0).permutation(len(sure))
    assert aurc(risk_coverage(np.array(sure)[order], np.array(right)[order])) == pytest.approx(aurc(points))


def test_area_without_ties_is_the_published_sum() -> None:
    """(1/N) Σ_i wrong among the i surest / i, and its two ends."""
    sure, right = drawn(157)
    surest = np.argsort(-sure)
    wrong = np.cumsum(~right[surest])
    points = risk_coverage(sure, right)
    assert aurc(points) == pytest.approx(np.mean(wrong / np.arange(1, 158)))
    assert aurc(risk_coverage(sure, np.ones(157))) == 0
    assert aurc(risk_coverage(np.full(157, 0.5), right)) == pytest.approx(1 - right.mean())
    for coverage in (1.0, 0.8, 0.5):
        kept = math.ceil(coverage * 157)
        assert risk_at(points, coverage) == pytest.approx(wrong[kept - 1] / kept)


def test_where_answers_tie_at_a_coverage_all_of_them_are_kept() -> None:
    points = risk_coverage([0.9, 0.5, 0.5, 0.5, 0.1], [1, 1, 0, 0, 0])
    assert risk_at(points, 0.2) == 0
    assert risk_at(points, 0.4) == risk_at(points, 0.8) == 0.5
    assert risk_at(points, 1.0) == pytest.approx(0.6)


@given(ANSWERS)
def test_auroc_equals_scikit_learn(answers: tuple[list[float], list[bool]]) -> None:
    sure, right = answers
    found = certainty_auroc(sure, right)
    if len(set(right)) == 1:
        assert found is None
    else:
        assert found == pytest.approx(roc_auc_score(right, sure))


def test_thinned_points_keep_both_ends() -> None:
    points = risk_coverage(*drawn(400))
    few = thinned(points)
    assert len(few) == 50
    assert (few[0], few[-1]) == (points[0], points[-1])
    assert [point.coverage for point in few] == sorted(point.coverage for point in few)
    assert thinned(points[:7]) == points[:7]
    assert thinned(points[:1]) == points[:1]


@given(ANSWERS, st.sampled_from([0.3, 0.5, 0.9, 1.0]), st.integers(1, 12))
def test_gate_by_trying_every_threshold(answers: tuple[list[float], list[bool]], precision: float, least: int) -> None:
    sure, right = answers
    possible = []
    for threshold in sorted(set(sure)):
        kept = [hit for c, hit in zip(sure, right, strict=True) if c >= threshold]
        if len(kept) >= least and sum(kept) >= precision * len(kept) - 1e-9:
            possible.append((threshold, sum(kept) / len(kept), len(kept)))
    found = find_gate(sure, right, precision, least)
    if not possible:
        assert found is None
        return
    assert found is not None
    assert (found.threshold, found.right, found.n) == (possible[0][0], pytest.approx(possible[0][1]), possible[0][2])
    assert found.kept == pytest.approx(found.n / len(sure))


def test_ten_answers_must_be_left() -> None:
    """The smallest of the thresholds that will do, though a higher one is no worse, and below it is none."""
    sure, right = np.linspace(0.05, 1, 20), np.array([False] * 9 + [True] * 11)
    gate = find_gate(sure, right)
    assert gate is not None
    assert (gate.threshold, gate.n, gate.total) == (pytest.approx(sure[8]), 12, 20)  # 11 of 12 are right
    assert find_gate(sure[:19], right[:19]) is not None
    assert find_gate(sure[:17], right[:17]) is None  # 8 right ones: of ten, two are wrong
    assert min(one.n for one in gates(sure, right)) == 10


@pytest.mark.parametrize("figure", [reliability, expected_calibration_error, risk_coverage, certainty_auroc, find_gate])
@pytest.mark.parametrize(
    ("certainty", "right", "message"),
    [
        ([0.5, 0.6], [1], r"certainty \(2,\) and right \(1,\) must be flat and of equal length"),
        ([[0.5]], [[1]], r"certainty \(1, 1\)"),
        ([], [], "no answer to calibrate on. Give"),
        ([0.5, float("nan")], [1, 0], "1 of 2 certainties, such as nan, .*Leave answers without a certainty out"),
        ([0.5, None], [1, 0], "1 of 2 certainties"),
        ([-0.1, 0.5, -3], [1, 0, 1], r"2 of 3 certainties, such as -0\.1, .*exp\(\) makes one"),
        ([1.5], [1], r"such as 1\.5"),
        ([0.5, 0.5], [1, 0.7], r"right must be 0 or 1; got \[0\.7, 1\.0\]"),
        ([0.5], [float("nan")], "right must be 0 or 1"),
    ],
)
def test_bad_input(figure: Any, certainty: Any, right: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        figure(certainty, right)


@pytest.mark.parametrize("bins", [0, -1, 2.5, True])
def test_bad_bins(bins: Any) -> None:
    with pytest.raises(InvalidInputError, match=f"bins={bins} must be a whole number"):
        reliability([0.5], [1], bins)


@pytest.mark.parametrize("precision", [0, -1, 1.01, float("nan")])
def test_bad_precision(precision: float) -> None:
    with pytest.raises(InvalidInputError, match=f"precision={precision} must be above 0"):
        find_gate([0.5], [1], precision)


# -- in an evaluation


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (64, 96, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def vlm() -> vea.VLM:
    family = FAMILIES["llava"]()
    return vea.wrap(family.model, family.processor, layers=[1, 2], sigma=0.1)


def test_rows_keep_the_probability_of_the_answer(vlm: vea.VLM) -> None:
    """As one pass over prompt and answer gives it, each answer alone."""
    family = FAMILIES["llava"]()
    samples = [vea.Sample(picture(i), f"what is {'so ' * i}{i}?", ("cat",), (), f"s{i}") for i in range(3)]
    found = evaluate(vlm, samples, ["base"], batch=3, max_new_tokens=4)
    for sample, row in zip(samples, found.rows, strict=True):
        inputs = family.inputs(sample.image, PLAIN_PROMPT.format(question=sample.question))
        whole = family.model.generate(**inputs, do_sample=False, max_new_tokens=4)
        length = inputs["input_ids"].shape[1]
        with torch.no_grad():
            logits = family.model(input_ids=whole, pixel_values=inputs["pixel_values"]).logits[0].double()
        said = whole[0, length:]
        expected = logits[length - 1 : -1].softmax(-1)[torch.arange(len(said)), said].prod()
        assert row["methods"]["base"]["certainty"] == pytest.approx(float(expected), rel=1e-3)


def test_a_model_that_gives_no_logits_has_no_certainty(vlm: vea.VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vea_sdk.pipeline.generation.MOST_LOGITS", 0)
    found = evaluate(vlm, [vea.Sample(picture(0), "what?", ("cat",), ())], ["base"], max_new_tokens=2)
    assert found.rows[0]["methods"]["base"]["certainty"] is None
    assert found.methods["base"].certainty is None
    assert "| certainty |" not in found.table()
    assert found.to_dict()["methods"]["base"]["certainty"] is None


def test_broken_logits_make_no_certainty(vlm: vea.VLM, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """NaN has no place in a file of JSON; the answer is kept."""
    broken = Generated("cat", torch.tensor([3]), torch.tensor([float("nan")]), finished=True)
    monkeypatch.setattr(vlm, "generate_many", lambda *_, **__: [broken])
    found = evaluate(vlm, [vea.Sample(picture(0), "what?", ("cat",), ())], ["base"], results=tmp_path / "r.jsonl")
    assert (found.rows[0]["methods"]["base"]["certainty"], found.methods["base"].certainty) == (None, None)
    assert found.methods["base"].metrics["em"].value == 1


def rows(certainty: Any, right: Any) -> list[dict[str, Any]]:
    token_scores, labels = np.array([1.0, 0.0]), np.array([True, False])
    return [
        {
            "id": str(i),
            "methods": {"base": score("x" if hit else "y", ["x"], token_scores, labels, certainty=sure)},
        }
        for i, (sure, hit) in enumerate(zip(certainty, right, strict=True))
    ]


def test_summary_and_table() -> None:
    sure, right = (values.tolist() for values in drawn(120))
    kept = rows([*sure, None, None], [*right, True, False])
    found = Evaluation(summarise(kept, ["base"]), kept, {})
    summary = found.methods["base"].certainty
    assert summary is not None
    assert summary.n == 120
    assert summary.auroc == pytest.approx(roc_auc_score(right, sure))
    surest = [hit for _, hit in sorted(zip(sure, right, strict=True), reverse=True)]
    risks = [surest[:n].count(False) / n for n in (120, 96, 60)]
    assert list(summary.risk_at.values()) == pytest.approx(risks)
    assert len(summary.risk_coverage) == 50
    figures = [summary.auroc, expected_calibration_error(sure, right), *risks]
    shown = " | ".join(f"{100 * figure:.1f}" for figure in figures)
    assert f"| base | {shown} | 120 |" in found.table()
    fields = json.loads(json.dumps(found.to_dict(), allow_nan=False))["methods"]["base"]["certainty"]
    assert fields["risk_at"] == dict(zip(("100%", "80%", "50%"), risks, strict=True))
    assert set(fields["reliability"][0]) == {"low", "high", "certainty", "right", "n"}
    assert set(fields["risk_coverage"][0]) == {"threshold", "coverage", "risk"}


def test_all_answers_right_have_no_ranking() -> None:
    kept = rows([0.9, 0.8], [True, True])
    found = Evaluation(summarise(kept, ["base"]), kept, {})
    assert found.methods["base"].certainty.auroc is None
    assert "| base | – | 15.0 | 0.0 | 0.0 | 0.0 | 2 |" in found.table()


def test_results_of_an_earlier_version_are_read(vlm: vea.VLM, tmp_path: Path) -> None:
    """They have no certainty, the samples added later have one."""
    samples = [vea.Sample(picture(i), "what?", ("cat",), (), f"s{i}") for i in range(3)]
    path = tmp_path / "r.jsonl"
    evaluate(vlm, samples[:2], ["base"], results=path, batch=2, max_new_tokens=2)
    first, *others = (json.loads(line) for line in path.read_text().splitlines())
    for row in others:
        del row["methods"]["base"]["certainty"]
    path.write_text("".join(json.dumps(line) + "\n" for line in (first, *others)))
    assert evaluate(vlm, samples[:2], ["base"], results=path, max_new_tokens=2).methods["base"].certainty is None
    found = evaluate(vlm, samples, ["base"], results=path, batch=2, max_new_tokens=2)
    assert (found.resumed, found.methods["base"].certainty.n) == (2, 1)


def test_figure(tmp_path: Path) -> None:
    """The dot of answers that are right as often as they are sure lies high, that of wrong ones at the foot."""
    pytest.importorskip("matplotlib")
    pictures = []
    for name, right in (("true", [i % 10 < 8 for i in range(40)]), ("false", [False] * 40)):
        kept = rows([0.8] * 40, right)
        draw_certainty(Evaluation(summarise(kept, ["base"]), kept, {}), tmp_path / f"{name}.png")
        with Image.open(tmp_path / f"{name}.png") as figure:
            pictures.append(np.asarray(figure.convert("RGB"), int))
    dots = [np.argwhere(np.abs(one[:, : one.shape[1] // 2] - (0x62, 0xA0, 0xCA)).max(-1) < 6) for one in pictures]
    heights = [np.median(dot[:, 0]) for dot in dots]  # rows count from the top
    assert all(len(dot) > 50 for dot in dots)
    assert heights[0] < heights[1] - 0.5 * pictures[0].shape[0]
