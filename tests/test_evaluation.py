"""The runner: what each method asks and shows, one look for all, and runs that end early."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from families import FAMILIES
from PIL import Image, ImageOps
from scipy import stats
from sklearn.metrics import average_precision_score, ndcg_score, roc_auc_score
from torch import Tensor

import vea_sdk as vea
from vea_sdk.adapters.geometry import ImageLayout, PatchGrid
from vea_sdk.errors import InvalidInputError, NaNAttentionError
from vea_sdk.evaluation import METHODS, Evaluation, Method, evaluate, score
from vea_sdk.evaluation.identity import describe
from vea_sdk.evaluation.methods import sweep
from vea_sdk.evaluation.plot import draw
from vea_sdk.evaluation.summary import summarise
from vea_sdk.evidence import Evidence, load_image
from vea_sdk.pipeline.generation import Generated
from vea_sdk.prompts import HIGHLIGHT_PROMPT, PLAIN_PROMPT

WIDTH, HEIGHT = 96, 64


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8))


def samples(count: int = 5) -> list[vea.Sample]:
    box = (30.0, 10.0, 60.0, 40.0)
    return [vea.Sample(picture(i), f"what is {i}?", ("cat",), (box,) * (i != 3), f"s{i}") for i in range(count)]


@pytest.fixture(scope="module")
def vlm() -> vea.VLM:
    family = FAMILIES["llava"]()
    return vea.wrap(family.model, family.processor, layers=[1, 2], sigma=0.1)


class Spy:
    """Notes what the model is asked and looks at; says "cat" to what ``right`` picks."""

    def __init__(self, vlm: vea.VLM, monkeypatch: pytest.MonkeyPatch, right: Any = lambda prompt: False) -> None:
        self.asked: list[tuple[str, Image.Image]] = []
        self.looked: list[tuple[str, Any]] = []
        attend_many = vlm.attend_many

        def attend(images: Sequence[Any], questions: Sequence[str], layers: Any = None) -> list[Evidence]:
            self.looked += [(question, layers) for question in questions]
            return attend_many(images, questions, layers)

        def answer(images: Sequence[Image.Image], prompts: Sequence[str], **_: Any) -> list[Generated]:
            self.asked += zip(prompts, images, strict=True)
            return [Generated("cat" if right(prompt) else "a dog", Tensor(), None, finished=True) for prompt in prompts]

        monkeypatch.setattr(vlm, "attend_many", attend)
        monkeypatch.setattr(vlm, "generate_many", answer)


def test_what_each_method_asks_and_shows(vlm: vea.VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = samples(1)[0]
    everywhere = vea.wrap(vlm.model, vlm.processor, layers="all", sigma=0.1)
    evidence = vlm.attend(sample.image, sample.question)
    spy = Spy(vlm, monkeypatch)
    evaluate(vlm, [sample], list(METHODS))
    assert spy.looked == [(sample.question, "all")]
    plain, pointing = (prompt.format(question=sample.question) for prompt in (PLAIN_PROMPT, HIGHLIGHT_PROMPT))
    prompts = [plain, pointing, pointing, pointing, pointing, pointing, plain]
    assert [prompt for prompt, _ in spy.asked] == prompts
    shown = {name: np.asarray(image, int) for name, (_, image) in zip(METHODS, spy.asked, strict=True)}
    expected = {
        "base": sample.image,
        "inst": sample.image,
        "vea": evidence.highlight(),
        "no-smooth": replace(evidence, sigma=0.0).highlight(),
        "no-profiling": everywhere.attend(sample.image, sample.question).highlight(),
        "no-prompt": evidence.highlight(),
    }
    for name, image in expected.items():
        assert np.abs(shown[name] - np.asarray(image, int)).max() <= 1, name  # a batch may round differently
    for name in ("no-smooth", "no-profiling", "base"):
        assert np.abs(shown["vea"] - shown[name]).max() > 3, name


@pytest.fixture
def spiked() -> Evidence:
    """Two layers on an 8 x 6 grid and a separator; layer 4 has a spike at (2, 3), layer 7 none."""
    rng = np.random.default_rng(0)
    rows = rng.uniform(0.5, 1.5, (2, 49)).astype(np.float32)
    rows[0, 2 * 8 + 3] = 100
    layout = ImageLayout(
        (60, 80), (60, 80), (0, 0, 80, 60), 49, (PatchGrid((0, 0, 80, 60), np.arange(48).reshape(6, 8)),)
    )
    return Evidence(Image.new("RGB", (80, 60), "white"), "?", rows.mean(0), layout, (4, 7), rows, sigma=0.05)


def test_what_denoising_and_profiling_do_to_the_scores(spiked: Evidence) -> None:
    ring = [8 * y + x for y in (1, 2, 3) for x in (2, 3, 4) if (y, x) != (2, 3)]
    raw = METHODS["no-denoise"].token_scores(spiked, [4])
    assert np.array_equal(raw, spiked.layer_scores[0])
    mended = METHODS["vea"].token_scores(spiked, [4])
    assert mended[19] == pytest.approx(spiked.layer_scores[0, ring].mean())
    assert np.array_equal(np.delete(mended, 19), np.delete(raw, 19))
    assert np.allclose(METHODS["no-profiling"].scores(spiked, [4]), spiked.layer_scores.mean(0))
    assert np.array_equal(spiked.layer_scores[0], raw), "the evidence stays as it was"
    noisy, clean = (np.asarray(METHODS[name].picture(spiked, [4])) for name in ("no-denoise", "vea"))
    assert noisy[25, 35, 0] == clean.max() == 255
    assert np.median(noisy) < np.median(clean) - 30  # beside a spike everything else is dark


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family(name: str) -> None:
    """Tiles, thumbnails and separators: rows equal scikit-learn on what each picture's own attention says."""
    family = FAMILIES[name]()
    vlm = vea.wrap(family.model, family.processor, layers=[1, 2])
    given = samples(3)
    found = evaluate(vlm, given, ["vea", "no-denoise", "no-profiling"], batch=3, max_new_tokens=2)
    for sample, row in zip(given, found.rows, strict=True):
        evidence = vlm.attend(sample.image, sample.question)
        labels = vea.metrics.patch_labels(evidence.layout, sample.boxes)
        expected = roc_auc_score(labels, evidence.scores)
        assert row["methods"]["no-denoise"]["auroc"] == pytest.approx(expected, abs=2e-3)  # equal scores may swap
        assert 0 < row["methods"]["no-profiling"]["auroc"] != row["methods"]["vea"]["auroc"]


def test_one_look_for_all_methods(vlm: vea.VLM) -> None:
    """The vision tower runs once per batch to look, and once per batch and method to answer."""
    ran = []
    handle = vlm.model.model.vision_tower.register_forward_hook(lambda *_: ran.append(1))
    try:
        evaluate(vlm, samples(5), list(METHODS), batch=2, max_new_tokens=2)
    finally:
        handle.remove()
    assert len(ran) == 3 * (1 + len(METHODS))


def test_rows_and_figures_against_scikit_learn(vlm: vea.VLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Base is right on 0, the pointing prompt on 1 and 2: gained 2, lost 1."""
    right = {PLAIN_PROMPT.format(question="what is 0?")} | {
        HIGHLIGHT_PROMPT.format(question=f"what is {i}?") for i in (1, 2)
    }
    scores = {one.id: vlm.attend(one.image, one.question).scores for one in samples()}
    Spy(vlm, monkeypatch, right.__contains__)
    found = evaluate(vlm, samples(), ["base", "vea"], results=tmp_path / "r.jsonl")
    _, *lines = (tmp_path / "r.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == list(found.rows)
    assert [row["id"] for row in found.rows] == ["s0", "s1", "s2", "s3", "s4"]
    cell_x, cell_y = np.arange(9) * 8 + 16, np.arange(9) * 8  # the middle 64 x 64 pixels, 8 x 8 patches
    inside = np.outer((cell_y[:-1] < 40) & (cell_y[1:] > 10), (cell_x[:-1] < 60) & (cell_x[1:] > 30)).ravel()
    for row in found.rows:
        kept = row["methods"]["vea"]
        if row["id"] == "s3":
            assert (kept["auroc"], kept["seen"], kept["ap"], kept["ndcg"], kept["pointing"]) == (None,) * 5
            continue
        assert kept["auroc"] == pytest.approx(roc_auc_score(inside, scores[row["id"]]), abs=1e-4)
        assert kept["ap"] == pytest.approx(average_precision_score(inside, scores[row["id"]]), abs=1e-3)
        assert kept["ndcg"] == pytest.approx(ndcg_score([inside], [scores[row["id"]]]), abs=1e-3)
        assert kept["pointing"] == inside[scores[row["id"]].argmax()]
        assert kept["seen"] == (kept["auroc"] >= 0.5)
    base, shown = found.methods["base"], found.methods["vea"]
    assert (base.metrics["em"].value, shown.metrics["em"].value) == (0.2, 0.4)
    assert (base.metrics["auroc"].n, base.metrics["em"].n) == (4, 5)
    assert "vqa_accuracy" not in base.metrics  # one answer per question
    assert base.comparison is None
    assert shown.comparison is not None
    assert (shown.comparison.gained, shown.comparison.lost) == (2, 1)
    assert shown.comparison.em_p == pytest.approx(stats.binomtest(2, 3).pvalue)
    assert shown.comparison.f1_difference.value == pytest.approx(0.2)
    for method in found.methods.values():
        seen = [row["methods"][method.name] for row in found.rows]
        assert sum(method.split.values()) == 5
        assert method.split["no_boxes"] == 1
        assert method.split["seen_wrong"] == sum(bool(one["seen"]) and one["em"] == 0 for one in seen)
    table = found.table()
    assert table.count("\n| vea |") == 2
    assert "20.0 [0.0, 60.0]" in table
    assert "+2 −1" in table
    json.dumps(found.to_dict(), allow_nan=False)


def test_every_combination_of_a_sweep_shows_its_own_picture(vlm: vea.VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """One look for all; the pictures are those of an evidence that was attended with these constants."""
    sample = samples(1)[0]
    spy = Spy(vlm, monkeypatch)
    methods = sweep(sigma=[0.02, 0.5], alpha=[0.2, 0.8])
    assert [method.name for method in methods] == [
        f"vea[sigma={sigma},alpha={alpha}]" for sigma in (0.02, 0.5) for alpha in (0.2, 0.8)
    ]
    found = evaluate(vlm, [sample], ["base", *methods])
    assert spy.looked == [(sample.question, "all")]
    assert list(found.methods) == ["base", *(method.name for method in methods)]
    monkeypatch.undo()
    shown = [np.asarray(image, int) for _, image in spy.asked[1:]]
    for (sigma, alpha), picture_shown in zip(product((0.02, 0.5), (0.2, 0.8)), shown, strict=True):
        expected = vlm.attend(sample.image, sample.question, sigma=sigma, alpha=alpha).highlight()
        assert np.abs(picture_shown - np.asarray(expected, int)).max() <= 1  # a batch may round differently
    assert all(np.abs(one - other).max() > 3 for one, other in combinations(shown, 2))
    (lam,) = sweep(lam=[3])
    assert (lam.name, lam.lam, lam.sigma, lam.alpha) == ("vea[lam=3]", 3, None, None)


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({}, "nothing to sweep over: give sigma=, alpha= or lam="),
        ({"sigma": []}, "nothing to sweep over"),
        ({"sigma": [0.1, -1]}, "sigma=-1 must not be negative"),
        ({"alpha": [2]}, "alpha=2 must lie in"),
        ({"lam": [0]}, "lam=0 must be positive"),
        ({"sigma": [0.1, 0.10]}, "names a value twice"),
        ({"sigma": ["wide"]}, "sigma='wide' is no number"),
    ],
)
def test_what_cannot_be_swept_over(axes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        sweep(**axes)


def test_points_and_boxes_against_the_boxes_of_the_samples(vlm: vea.VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted pixel by pixel on a mask of each box."""
    given = [
        replace(one, boxes=((0, 0, 40, 60), (60, 30, 90, 60)) if one.id == "s1" else one.boxes) for one in samples()
    ]
    looks = {one.id: vlm.attend(one.image, one.question) for one in given}
    Spy(vlm, monkeypatch)
    found = evaluate(vlm, given, ["vea"])

    def mask(box: Sequence[float]) -> np.ndarray:
        grid = np.zeros((HEIGHT * 8, WIDTH * 8), bool)  # eighths of pixels: boxes of patches need not be whole
        x0, y0, x1, y1 = (round(8 * side) for side in box)
        grid[y0:y1, x0:x1] = True
        return grid

    points, overlaps = [], []
    for row, sample in zip(found.rows, given, strict=True):
        kept = row["methods"]["vea"]
        if not sample.boxes:
            assert (kept["point"], kept["iou"]) == (None, None)
            continue
        look = looks[sample.id]
        first = mask(look.boxes()[0].box)
        x, y = look.point()
        truth = [mask(box) for box in sample.boxes]
        assert kept["point"] == any(one[int(8 * y), int(8 * x)] for one in truth)
        assert kept["iou"] == pytest.approx(max((first & one).sum() / (first | one).sum() for one in truth), abs=0.02)
        points.append(kept["point"])
        overlaps.append(kept["iou"])
    metrics = found.methods["vea"].metrics
    assert (metrics["point"].n, metrics["iou"].n) == (4, 4)
    assert metrics["point"].value == pytest.approx(np.mean(points))
    assert metrics["iou"].value == pytest.approx(np.mean(overlaps), abs=1e-3)
    assert "| point in a box | IoU |" in found.table()


def test_a_placeholder_in_a_question_names_its_sample(vlm: vea.VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the tokenizer cannot take it for text; nothing has run then."""
    spy = Spy(vlm, monkeypatch)
    monkeypatch.setattr("vea_sdk.pipeline.inputs._takes_text", lambda processor: False)
    given = [samples(1)[0], replace(samples(2)[1], question="<image> What?")]
    with pytest.raises(InvalidInputError, match=r"'s1'.*<image>"):
        evaluate(vlm, given, ["base"])
    assert not spy.asked
    assert not spy.looked
    monkeypatch.undo()
    Spy(vlm, monkeypatch)
    assert len(evaluate(vlm, given, ["base"]).rows) == 2


@pytest.mark.parametrize("orientation", [3, 5, 6, 8])
def test_a_turned_photo_is_shown_upright(vlm: vea.VLM, monkeypatch: pytest.MonkeyPatch, orientation: int) -> None:
    """Looked at, asked about and held against its boxes as Pillow's own transposition shows it."""
    tag, file = Image.Exif(), io.BytesIO()
    tag[0x112] = orientation
    picture(0).save(file, "PNG", exif=tag)
    upright = ImageOps.exif_transpose(Image.open(file)).convert("RGB")
    truth = vea.Sample(Image.fromarray(np.asarray(upright)), "what?", ("cat",), ((2.0, 2.0, 60.0, 60.0),), "a")
    spy = Spy(vlm, monkeypatch)
    found = evaluate(vlm, [replace(truth, image=Image.open(file))], ["base", "vea"])
    for _, shown in spy.asked:
        assert shown.size == upright.size
    assert np.array_equal(load_image(spy.asked[0][1]), upright)  # as the model loads what it is given
    assert found.rows == evaluate(vlm, [truth], ["base", "vea"]).rows


def test_seen_by_pointing(spiked: Evidence) -> None:
    labels = np.zeros(49, bool)
    labels[[19, 20]] = True
    token_scores = np.zeros(49)
    token_scores[[5, 19, 20]] = 3, 2, 1  # a high AUROC, but the peak is elsewhere
    assert score("x", ["x"], token_scores, labels)["seen"] is True
    assert score("x", ["x"], token_scores, labels, seen_by="pointing")["seen"] is False
    assert score("x", ["x"], token_scores, labels, threshold=1.0)["seen"] is False
    many = score("two", ["2"] * 3 + ["3"], token_scores, labels)
    assert many["vqa_accuracy"] == pytest.approx((3 * 2 / 3 + 1) / 4)
    assert score("x", ["x"], token_scores, np.ones(49, bool))["seen"] is None


class StoppedError(Exception):
    pass


def stopping(after: int) -> Callable[[int], None]:
    done = 0

    def progress(count: int) -> None:
        nonlocal done
        done += count
        if done >= after:
            raise StoppedError

    return progress


@pytest.mark.parametrize("after", [2, 4])
@pytest.mark.parametrize("cut", [0, 30])
def test_a_stopped_run_goes_on(vlm: vea.VLM, tmp_path: Path, after: int, cut: int) -> None:
    """The table is the same, no sample is asked about twice or lost, though the last row was half written."""
    options: dict[str, Any] = {"batch": 2, "max_new_tokens": 3}
    whole = evaluate(vlm, samples(5), results=tmp_path / "whole.jsonl", **options)
    path = tmp_path / "stopped.jsonl"
    with pytest.raises(StoppedError):
        evaluate(vlm, samples(5), results=path, progress=stopping(after), **options)
    if cut:
        path.write_bytes(path.read_bytes()[:-cut])
    again = evaluate(vlm, samples(5), results=path, **options)
    assert (again.table(), again.rows, again.resumed) == (whole.table(), whole.rows, after - bool(cut))
    ids = [json.loads(line).get("id") for line in path.read_text().splitlines()]
    assert sorted(ids[1:]) == ["s0", "s1", "s2", "s3", "s4"]
    finished = evaluate(vlm, samples(5), results=path, **options)
    assert (finished.table(), finished.resumed) == (whole.table(), 5)


def test_more_samples_later(vlm: vea.VLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spy = Spy(vlm, monkeypatch)
    evaluate(vlm, samples(2), ["base"], results=tmp_path / "r.jsonl", batch=2)
    both = evaluate(vlm, samples(4), ["base"], results=tmp_path / "r.jsonl", batch=2)
    assert len(both.rows) == 4
    assert len(spy.asked) == 4
    assert len(evaluate(vlm, samples(1), ["base"], results=tmp_path / "r.jsonl").rows) == 1


def test_results_of_something_else_are_refused(vlm: vea.VLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Spy(vlm, monkeypatch)
    path = tmp_path / "r.jsonl"
    evaluate(vlm, samples(2), ["base"], results=path)
    with pytest.raises(InvalidInputError, match="another run: methods was"):
        evaluate(vlm, samples(2), ["base", "vea"], results=path)
    with pytest.raises(InvalidInputError, match="another run: max_new_tokens was 64, now 9"):
        evaluate(vlm, samples(2), ["base"], results=path, max_new_tokens=9)
    other = vea.wrap(vlm.model, vlm.processor, layers=[1, 2])
    with pytest.raises(InvalidInputError, match=r"another run: sigma was 0\.1, now 0\.5"):
        evaluate(other, samples(2), ["base"], results=path)
    with pytest.raises(InvalidInputError, match=r"'s1'.*'what is 1\?'.*'why\?'"):
        evaluate(vlm, [samples(2)[0], replace(samples(2)[1], question="why?")], ["base"], results=path)


def test_weights_and_the_model_that_looks_are_part_of_a_run(vlm: vea.VLM) -> None:
    family, other = FAMILIES["llava"](), FAMILIES["qwen2_vl"]()
    eye = vea.wrap(other.model, other.processor, layers=[1])
    before = describe(vlm)
    delegating = describe(vea.wrap(family.model, family.processor, attend_with=eye))
    assert delegating["attend_with"]["weights"] == describe(eye)["weights"] != before["weights"]
    parameter = family.model.lm_head.weight
    kept = parameter.data.clone()
    try:
        parameter.data[0, 0] += 1
        assert describe(vlm)["weights"] != before["weights"]
    finally:
        parameter.data.copy_(kept)
    assert describe(vlm) == before


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        ([], {}, "no sample"),
        ([replace(samples(1)[0], answers=())], {}, "'s0' has no accepted answer"),
        ([*samples(2), replace(samples(3)[2], id="s0")], {}, "sample 2: the id 's0' comes twice"),
        ([replace(samples(1)[0], boxes=((0, 0, 500, 9),))], {}, "sample 's0': the box .*leaves its picture of 96x64"),
        ([replace(samples(1)[0], boxes=((9, 0, 5, 9),))], {}, "sample 's0': the box .*inverted"),
        (samples(1), {"methods": ["blur"]}, "'blur' is unknown.*base, inst, vea"),
        (samples(1), {"methods": []}, "no method"),
        (samples(1), {"methods": ["base", Method("base")]}, "'base' was given twice"),
        (samples(1), {"batch": 0}, "batch=0"),
        (samples(1), {"seen_by": "luck"}, "'luck' is unknown"),
        (samples(1), {"seen_threshold": 2}, "seen_threshold=2"),
    ],
)
def test_bad_input(
    vlm: vea.VLM, monkeypatch: pytest.MonkeyPatch, given: list[vea.Sample], options: dict[str, Any], message: str
) -> None:
    Spy(vlm, monkeypatch)
    with pytest.raises(InvalidInputError, match=message):
        evaluate(vlm, given, **options)


def test_broken_attention_is_reported_with_its_samples(vlm: vea.VLM) -> None:
    weight = vlm.model.model.language_model.layers[1].self_attn.q_proj.weight
    kept = weight.data.clone()
    try:
        weight.data[0, 0] = float("nan")
        with pytest.raises(NaNAttentionError, match=r"samples s0, s1: NaN .*layers \[1, 2, 3\]"):
            evaluate(vlm, samples(3), ["base"], batch=2)
    finally:
        weight.data.copy_(kept)


def test_samples_are_taken_one_batch_at_a_time(vlm: vea.VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    spy = Spy(vlm, monkeypatch)
    taken = []

    def stream() -> Iterator[vea.Sample]:
        for sample in samples(4):
            taken.append((sample.id, len(spy.asked)))
            yield replace(sample, id="")

    found = evaluate(vlm, stream(), ["base"], batch=2)
    assert taken == [("s0", 0), ("s1", 0), ("s2", 2), ("s3", 2)]
    assert [row["id"] for row in found.rows] == ["0", "1", "2", "3"]


def rows(right: dict[str, list[bool]]) -> list[dict[str, Any]]:
    token_scores, labels = np.array([1.0, 0.0]), np.array([True, False])
    answers = {name: ["x" if one else "y" for one in ones] for name, ones in right.items()}
    count = len(next(iter(right.values())))
    return [
        {"id": str(i), "methods": {name: score(said[i], ["x"], token_scores, labels) for name, said in answers.items()}}
        for i in range(count)
    ]


def test_summary_of_one_sample_has_no_interval() -> None:
    kept = rows({"base": [True], "vea": [False]})
    found = Evaluation(summarise(kept, ["base", "vea"]), kept, {})
    assert (found.methods["base"].metrics["em"].low, found.methods["base"].metrics["em"].high) == (None, None)
    assert "| 100.0 |" in found.table()
    assert "nan" not in json.dumps(found.to_dict()).lower()


def test_figure(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    kept = rows({"base": [True, False] * 10, "vea": [True] * 19 + [False]})
    draw(Evaluation(summarise(kept, ["base", "vea"]), kept, {}), tmp_path / "summary.png")
    with Image.open(tmp_path / "summary.png") as figure:
        colours = {pixel for _, pixel in figure.convert("RGB").getcolors(1 << 24)}
    assert {(0x2B, 0x7A, 0x5B), (0xE0, 0x89, 0x3A)} <= colours  # both parts of the split are there


def test_the_code_of_the_docs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    page = (Path(__file__).parent.parent / "docs" / "evaluation.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    assert capsys.readouterr().out.startswith("| 8 samples | EM |")
    assert all(f"| `{name}` |" in page for name in METHODS)
