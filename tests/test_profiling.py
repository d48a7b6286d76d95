"""Profiling against eager attention in float64 and scikit-learn, and runs that are cut off anywhere."""

from __future__ import annotations

import copy
import io
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from families import FAMILIES, TinyFamily
from PIL import Image
from sklearn.metrics import average_precision_score, ndcg_score, roc_auc_score
from torch import nn

import vea_sdk as vea
from vea_sdk.errors import InvalidInputError, NaNAttentionError
from vea_sdk.grounding.profiling import best_layers, confidence, measure, n_best, profile_of, stability, transfer
from vea_sdk.grounding.profiling.measurement import Measured, Measurement
from vea_sdk.prompts import PLAIN_PROMPT

SMALL = {"sizes": [(240, 240), (320, 200)]}


def vlm_of(name: str = "llava", **options: Any) -> vea.VLM:
    family = FAMILIES[name]()
    return vea.wrap(family.model, family.processor, **({"layers": "all"} | options))


def by_hand(family: TinyFamily, samples: list[vea.Sample]) -> np.ndarray:
    """[3, samples, layers] AUROC, AP, NDCG from eager attention in float64, labels by comparing edges one by one."""
    model = copy.deepcopy(family.model).double()
    model.set_attn_implementation("eager")
    found = []
    for sample in samples:
        inputs = family.inputs(sample.image, PLAIN_PROMPT.format(question=sample.question))
        with torch.no_grad():
            attentions = model(**inputs.to(torch.float64), output_attentions=True).attentions
        seen = inputs["input_ids"][0] == family.image_token_id
        sizes = [(sample.image.height, sample.image.width)]
        (layout,) = vea.adapters.find(family.model).layouts(inputs, sizes, family.processor)
        x0, y0, x1, y1 = sample.boxes[0]
        truth = [a < x1 and x0 < c and b < y1 and y0 < d for a, b, c, d in layout.token_boxes().tolist()]
        rows = [layer[0, :, -1, seen].mean(0).numpy() for layer in attentions]
        figures = [(roc_auc_score(truth, r), average_precision_score(truth, r), ndcg_score([truth], [r])) for r in rows]
        found.append(figures)
    return np.moveaxis(np.array(found), -1, 0)


@pytest.mark.parametrize("name", ["llava", "llava_next", "qwen2_5_vl"])
def test_equals_an_independent_computation(name: str) -> None:
    samples = vea.probes(6, seed=3, **SMALL)
    expected = by_hand(FAMILIES[name](), samples)
    found = measure(vlm_of(name), samples, batch=4)
    for figure, values in zip(("auroc", "average_precision", "ndcg"), expected, strict=True):
        # float32 attention may swap two patches that float64 tells apart
        np.testing.assert_allclose(found.figures(figure), values, atol=2e-3)
    for fraction in (0.1, 0.5, 1.0):
        made = profile_of(found, fraction)
        order = sorted(range(4), key=lambda layer: -expected[0].mean(0)[layer])
        assert made.layers == tuple(sorted(order[: math.ceil(fraction * 4)]))
    np.testing.assert_allclose(made.auroc, expected[0].mean(0), atol=2e-3)
    assert (made.n_samples, made.n_layers, made.skipped, made.rule) == (6, 4, {}, "any")
    assert made.version == vea.__version__


def test_profile_is_measure_and_choice() -> None:
    vlm, samples = vlm_of(), vea.probes(5, **SMALL)
    done: list[int] = []
    made = vea.profile(vlm, iter(samples), fraction=0.5, batch=2, progress=done.append)
    assert done == [2, 2, 1]
    assert made == profile_of(measure(vlm, samples, batch=2), 0.5)
    assert vea.capture(vlm.model, layers=made).layers == made.layers
    assert "1 scene, 1 document" in made.source


def test_layers_without_softmax_attention_are_absent() -> None:
    class Partial(vea.adapters.Adapter):
        def attention_modules(self) -> dict[int, nn.Module]:
            return {number: module for number, module in super().attention_modules().items() if number != 2}

        def lay_out(self, *arguments: Any) -> Any:
            return vea.adapters.find(self.model).lay_out(*arguments)

    samples = vea.probes(3, **SMALL)
    made = vea.profile(vlm_of(adapter=Partial), samples, fraction=1.0)
    assert made.layers == (0, 1, 3)
    assert made.auroc[2] is made.ndcg[2] is made.chosen_share[2] is None
    whole = vea.profile(vlm_of(), samples)
    assert [made.auroc[layer] for layer in made.layers] == [whole.auroc[layer] for layer in made.layers]
    some = vea.profile(vlm_of(), samples, layers=[1, 3])
    assert [value is None for value in some.auroc] == [True, False, True, False]


def test_a_model_that_another_attends_for() -> None:
    eye = vlm_of("qwen2_5_vl")
    family = FAMILIES["llava"]()
    samples = vea.probes(2, **SMALL)
    assert vea.profile(vea.wrap(family.model, family.processor, attend_with=eye), samples) == vea.profile(eye, samples)


def test_the_choice() -> None:
    assert [n_best(n) for n in (1, 4, 10, 11, 28, 70)] == [1, 1, 1, 2, 3, 7]  # 0.1 * 70 is above 7 in floats
    assert n_best(3, 1.0) == 3
    assert best_layers([0.5, 0.9, 0.9, 0.9], 2).tolist() == [1, 2]  # of equals, the shallower
    assert best_layers([[1, 2, 3], [3, 2, 1]], 2).tolist() == [[1, 2], [0, 1]]
    for fraction in (0.0, -0.1, 1.1, float("nan")):
        with pytest.raises(InvalidInputError, match="above 0 and at most 1"):
            n_best(4, fraction)


def test_samples_that_cannot_be_ranked_are_counted() -> None:
    samples = [replace(one, boxes=((30.0, 60.0, 150.0, 120.0),)) for one in vea.probes(3, sizes=[(240, 240)])]
    whole = replace(samples[0], boxes=((0.0, 0.0, 240.0, 240.0),), id="whole")
    speck = replace(samples[1], boxes=((1.0, 1.0, 2.0, 2.0),), id="speck")
    none = replace(samples[2], boxes=(), id="none")
    found = measure(vlm_of(), [*samples, whole, speck, none], rule="all")
    assert {one.id: one.skipped for one in found.samples[3:]} == {
        "whole": "one class",
        "speck": "one class",
        "none": "no boxes",
    }
    made = vea.profile(vlm_of(), [none, *samples, whole])
    assert made.skipped == {"no boxes": 1, "one class": 1}
    assert made.auroc == vea.profile(vlm_of(), samples, batch=3).auroc


def changed(**fields: Any) -> Callable[[vea.Sample], vea.Sample]:
    return lambda sample: replace(sample, **fields)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (changed(boxes=((50.0, 10.0, 20.0, 30.0),)), r"probe-0-1.*inverted"),
        (changed(boxes=((10.0, 10.0, 2000.0, 30.0),)), r"probe-0-1.*leaves its picture"),
        (changed(boxes=((10.0, 10.0, 20.0),)), r"probe-0-1.*no box"),
        (changed(id="probe-0-0"), "probe-0-0.*twice"),
    ],
)
def test_bad_samples_are_named(change: Callable[[vea.Sample], vea.Sample], message: str) -> None:
    first, second = vea.probes(2, **SMALL)
    with pytest.raises(InvalidInputError, match=message):
        vea.profile(vlm_of(), [first, change(second)])


def turned(sample: vea.Sample) -> vea.Sample:
    """The same sample as a camera held sideways stores it."""
    tag, file = Image.Exif(), io.BytesIO()
    tag[0x112] = 6
    sample.image.transpose(Image.Transpose.ROTATE_90).save(file, "PNG", exif=tag)
    return replace(sample, image=Image.open(file))


def with_alpha(sample: vea.Sample) -> vea.Sample:
    """The same sample with an alpha channel that hides nothing."""
    return replace(sample, image=sample.image.convert("RGBA"))


def as_palette(sample: vea.Sample) -> vea.Sample:
    return replace(sample, image=sample.image.quantize(256, dither=Image.Dither.NONE))


@pytest.mark.parametrize("stored", [turned, with_alpha, as_palette])
def test_how_a_picture_is_stored_changes_nothing(stored: Callable[[vea.Sample], vea.Sample]) -> None:
    """Figures and digests are those of the same pixels, upright and RGB."""
    samples = [replace(one, image=as_palette(one).image.convert("RGB")) for one in vea.probes(2, **SMALL)]
    assert measure(vlm_of(), map(stored, samples)) == measure(vlm_of(), samples)


def test_bad_input() -> None:
    samples = vea.probes(2, **SMALL)
    with pytest.raises(InvalidInputError, match=r"no sample.*vea\.probes"):
        vea.profile(vlm_of(), [])
    with pytest.raises(InvalidInputError, match="none of the 2 samples can be ranked: 2 with no boxes"):
        vea.profile(vlm_of(), [replace(one, boxes=()) for one in samples])
    with pytest.raises(InvalidInputError, match="batch=0"):
        vea.profile(vlm_of(), samples, batch=0)
    with pytest.raises(InvalidInputError, match="'most'"):
        vea.profile(vlm_of(), samples, rule="most")  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="fraction=2"):
        vea.profile(vlm_of(), iter(()), fraction=2)


def test_nan_is_reported_with_sample_and_layer() -> None:
    vlm = vlm_of()
    weight = vlm.model.model.language_model.layers[3].self_attn.q_proj.weight
    kept = weight.data.clone()
    weight.data.fill_(math.nan)
    try:
        with pytest.raises(NaNAttentionError, match=r"probe-0-0.*\[3\] of \[0, 1, 2, 3\].*layers="):
            vea.profile(vlm, vea.probes(2, **SMALL))
        assert vea.profile(vlm, vea.probes(2, **SMALL), layers=[0, 1, 2]).auroc[3] is None
    finally:
        weight.data.copy_(kept)


class TestJournal:
    @pytest.fixture(scope="class")
    @classmethod
    def whole(cls, tmp_path_factory: pytest.TempPathFactory) -> tuple[vea.Profile, bytes]:
        """An uninterrupted run: its profile and its journal."""
        path = tmp_path_factory.mktemp("journal") / "j.jsonl"
        return cls.run(path), path.read_bytes()

    @staticmethod
    def samples() -> list[vea.Sample]:
        samples = vea.probes(7, kinds=["table", "shapes"], **SMALL)
        samples[4] = replace(samples[4], boxes=())
        return samples

    @classmethod
    def run(cls, path: Path, **options: Any) -> vea.Profile:
        return vea.profile(vlm_of(), cls.samples(), batch=3, journal=path, **options)

    def test_cut_off_anywhere_it_goes_on(self, whole: tuple[vea.Profile, bytes], tmp_path: Path) -> None:
        made, content = whole
        assert content.count(b"\n") == 8
        rng = np.random.default_rng(0)
        ends = [at for at, byte in enumerate(content, 1) if byte == ord("\n")]
        for cut in (0, 1, *ends[:3], *rng.integers(1, len(content), 6).tolist()):
            path = tmp_path / f"{cut}.jsonl"
            path.write_bytes(content[:cut])
            assert self.run(path) == made
            assert path.read_bytes() == content

    def test_stopped_between_batches(self, whole: tuple[vea.Profile, bytes], tmp_path: Path) -> None:
        path = tmp_path / "j.jsonl"

        def stop(_: int) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            self.run(path, progress=stop)
        assert path.read_bytes().count(b"\n") == 4
        assert self.run(path) == whole[0]
        assert path.read_bytes() == whole[1]

    def test_a_finished_run_does_not_run_the_model_again(
        self, whole: tuple[vea.Profile, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "j.jsonl").write_bytes(whole[1])
        monkeypatch.setattr(vea.VLM, "attend_many", None)
        assert self.run(tmp_path / "j.jsonl") == whole[0]

    def test_of_another_run_or_other_samples_it_is_refused(
        self, whole: tuple[vea.Profile, bytes], tmp_path: Path
    ) -> None:
        path = tmp_path / "j.jsonl"
        path.write_bytes(whole[1])
        with pytest.raises(InvalidInputError, match=r"another run: rule was 'any', now 'half'"):
            self.run(path, rule="half")
        with pytest.raises(InvalidInputError, match=r"another run: model was.*weights was"):
            vea.profile(vlm_of("qwen2_5_vl"), self.samples(), journal=path)
        first, *others = self.samples()
        inverted = Image.eval(first.image, lambda value: 255 - value)
        with pytest.raises(InvalidInputError, match=r"'probe-0-0'.*another picture"):
            vea.profile(vlm_of(), [replace(first, image=inverted), *others], journal=path)
        row = json.loads(whole[1].splitlines()[1])
        del row["auroc"]
        lines = whole[1].splitlines(keepends=True)
        path.write_bytes(lines[0] + json.dumps(row).encode() + b"\n")
        with pytest.raises(InvalidInputError, match=r"'probe-0-0' is broken.*auroc"):
            self.run(path)
        assert path.read_bytes().count(b"\n") == 2


def drawn(
    n: int, means: list[float], spread: float = 0.1, kinds: tuple[str, ...] = ("a",), seed: int = 0
) -> Measurement:
    """A measurement whose AUROC are normal about given means."""
    values = np.random.default_rng(seed).normal(means, spread, (n, len(means)))
    rows = [Measured(str(i), kinds[i % len(kinds)], "", tuple(row)) for i, row in enumerate(values.tolist())]
    return Measurement("drawn", len(means), tuple(range(len(means))), "any", tuple(rows))


def test_confidence_is_that_of_the_mean() -> None:
    """For normal figures: mean ± 1.96 s / √n, and P(layer 2 beats layer 1) = Φ(difference / its standard error)."""
    found = drawn(200, [0.3, 0.7, 0.71])
    sure = confidence(found, resamples=20_000)
    values = found.figures()
    error = values.std(0, ddof=1) / math.sqrt(200)
    np.testing.assert_allclose(sure.low, values.mean(0) - 1.96 * error, atol=0.1 * error.max())
    np.testing.assert_allclose(sure.high, values.mean(0) + 1.96 * error, atol=0.1 * error.max())
    gap = values[:, 2] - values[:, 1]
    expected = 0.5 * (1 + math.erf(gap.mean() / (gap.std(ddof=1) / math.sqrt(200)) / math.sqrt(2)))
    np.testing.assert_allclose(sure.share, [0, 1 - expected, expected], atol=0.02)
    assert confidence(drawn(1, [0.3, 0.7])).low is None
    assert confidence(found, seed=1) != confidence(found, seed=0) == confidence(found, seed=0)


def test_stability_equals_drawing_by_hand() -> None:
    found = drawn(60, [0.50, 0.60, 0.62, 0.70, 0.71], spread=0.15)
    rows = stability(found, fraction=0.4, counts=(5, 20, 500), resamples=4000)
    assert [row.n_samples for row in rows] == [5, 20, 60]
    values, rng = found.figures(), np.random.default_rng(7)
    best = set(np.argsort(-values.mean(0))[:2].tolist())
    for row in rows:
        same, agreement, lost = [], [], []
        for _ in range(1500):
            means = values[rng.integers(0, 60, row.n_samples)].mean(0)
            chosen = set(np.argsort(-means)[:2].tolist())
            same.append(chosen == best)
            agreement.append(len(chosen & best) / len(chosen | best))
            lost.append(np.mean([values.mean(0)[list(best)].mean() - values.mean(0)[list(chosen)].mean()]))
        assert row.same == pytest.approx(np.mean(same), abs=0.05)
        assert row.agreement == pytest.approx(np.mean(agreement), abs=0.04)
        assert row.lost == pytest.approx(np.mean(lost), abs=0.004)
    assert rows[0].agreement < rows[-1].agreement
    sure = stability(drawn(30, [0.1, 0.9], spread=0.01))
    assert all((row.same, row.agreement, row.lost) == (1, 1, 0) for row in sure)
    with pytest.raises(InvalidInputError, match="0 samples"):
        stability(found, counts=(0,))


def test_transfer_by_hand() -> None:
    rows = [("x", (0.9, 0.2, 0.4)), ("y", (0.1, 0.8, 0.6)), ("x", (0.7, 0.4, 0.4))]
    samples = tuple(Measured(str(i), kind, "", values) for i, (kind, values) in enumerate(rows))
    found = transfer(Measurement("m", 8, (2, 5, 7), "any", samples))
    assert (found.kinds, found.n_samples, found.layers) == (("x", "y"), (2, 1), ((2,), (5,)))
    np.testing.assert_allclose(found.auroc, [[0.8, 0.1], [0.3, 0.8]])
    np.testing.assert_allclose(found.every, [1.5 / 3, 1.5 / 3])


@pytest.mark.parametrize("ours", ["auroc", "average_precision", "ndcg"])
def test_rankings_equal_scikit_learn_on_500_cases(ours: str) -> None:
    theirs = {
        "auroc": roc_auc_score,
        "average_precision": average_precision_score,
        "ndcg": lambda labels, scores: ndcg_score([labels], [scores]),
    }[ours]
    rng = np.random.default_rng(0)

    def cases() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for case in range(500):
            n = int(rng.integers(2, 120))
            scores = rng.random(n) ** 8 if case % 2 else rng.integers(0, rng.integers(1, 6), n) / 7  # ties, all equal
            labels = rng.random(n) < rng.uniform(0.02, 0.98)
            labels[rng.permutation(n)[:2]] = True, False
            yield scores, labels

    for scores, labels in cases():
        assert getattr(vea.metrics, ours)(scores, labels) == pytest.approx(theirs(labels, scores), abs=1e-12)
