"""Metrics against scikit-learn, brute force, and cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, ndcg_score, roc_auc_score

from vea_sdk.adapters.geometry import ImageLayout, PatchGrid
from vea_sdk.errors import InvalidInputError
from vea_sdk.grounding.metrics import (
    anls,
    auroc,
    average_precision,
    exact_match,
    ndcg,
    patch_labels,
    token_f1,
    vqa_accuracy,
)
from vea_sdk.grounding.metrics.answers import edit_distance

SKLEARN = [
    (auroc, lambda scores, labels: roc_auc_score(labels, scores)),
    (average_precision, lambda scores, labels: average_precision_score(labels, scores)),
    (ndcg, lambda scores, labels: ndcg_score([labels], [scores])),
]


@pytest.mark.parametrize(("ours", "theirs"), SKLEARN)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_rankings_equal_scikit_learn(ours, theirs, data: st.DataObject) -> None:  # type: ignore[no-untyped-def]
    n = data.draw(st.integers(2, 60))
    levels = data.draw(st.sampled_from([2, 5, 10_000]))  # few levels: many ties
    rng = np.random.default_rng(data.draw(st.integers(0, 10_000)))
    scores = rng.integers(0, levels, n) / levels - 0.3
    labels = rng.random(n) < data.draw(st.sampled_from([0.1, 0.5, 0.9]))
    labels[:2] = True, False
    rng.shuffle(labels)
    assert ours(scores, labels) == pytest.approx(theirs(scores, labels), abs=1e-12)
    assert ours(scores.tolist(), labels.astype(int).tolist()) == ours(scores, labels)


@pytest.mark.parametrize("metric", [auroc, average_precision, ndcg])
def test_rankings_refuse_what_cannot_be_ranked(metric) -> None:  # type: ignore[no-untyped-def]
    for labels, count in (([0, 0, 0], "0 of 3"), ([1, 1, 1], "3 of 3"), ([], "0 of 0")):
        with pytest.raises(InvalidInputError, match=f"{count}.*both classes"):
            metric(np.arange(len(labels)), labels)
    with pytest.raises(InvalidInputError, match=r"\(3,\).*\(2,\)"):
        metric([1, 2, 3], [0, 1])
    with pytest.raises(InvalidInputError, match="1 of 2 scores are NaN"):
        metric([1, np.nan], [0, 1])
    with pytest.raises(InvalidInputError, match="0 or 1"):
        metric([1, 2], [0, 2])


def test_known_rankings() -> None:
    assert auroc([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]) == 0.75
    assert auroc([1, 1, 1, 1], [0, 1, 0, 1]) == 0.5
    assert average_precision([3, 2, 1], [1, 0, 1]) == pytest.approx((1 + 2 / 3) / 2)


class TestPatchLabels:
    PATCHES = ((0, 0, 10, 10), (10, 0, 20, 10), (0, 10, 10, 20), (10, 10, 20, 20), (np.nan,) * 4)

    @pytest.mark.parametrize(
        ("boxes", "rule", "expected"),
        [
            ([(2, 2, 4, 4)], "any", [1, 0, 0, 0, 0]),
            ([(2, 2, 4, 4)], "half", [0, 0, 0, 0, 0]),
            ([(0, 0, 10, 10)], "any", [1, 0, 0, 0, 0]),  # touching edges share no pixel
            ([(0, 0, 15, 10)], "half", [1, 1, 0, 0, 0]),
            ([(0, 0, 15, 10)], "all", [1, 0, 0, 0, 0]),
            ([(0, 0, 14.9, 10)], "half", [1, 0, 0, 0, 0]),
            ([(-5, -5, 25, 25)], "all", [1, 1, 1, 1, 0]),
            ([(0, 0, 5, 10), (5, 0, 10, 10)], "all", [1, 0, 0, 0, 0]),  # two boxes side by side
            ([(0, 0, 4, 10), (0, 0, 4, 10)], "half", [0, 0, 0, 0, 0]),  # the same box twice covers no more
            ([], "any", [0, 0, 0, 0, 0]),
        ],
    )
    def test_rules(self, boxes: list, rule: str, expected: list[int]) -> None:
        assert patch_labels(np.array(self.PATCHES), boxes, rule).tolist() == [bool(value) for value in expected]

    @settings(max_examples=40, deadline=None)
    @given(seed=st.integers(0, 10_000), n_boxes=st.integers(1, 5), rule=st.sampled_from(["any", "half", "all"]))
    def test_equals_counting_pixels(self, seed: int, n_boxes: int, rule: str) -> None:
        rng = np.random.default_rng(seed)
        starts = rng.integers(0, 20, (n_boxes, 2))
        boxes = np.hstack([starts, starts + rng.integers(1, 15, (n_boxes, 2))])
        covered = np.zeros((40, 40), dtype=bool)
        for x0, y0, x1, y1 in boxes:
            covered[y0:y1, x0:x1] = True
        patches = [(x, y, x + 4, y + 4) for y in range(0, 40, 4) for x in range(0, 40, 4)]
        share = [covered[y0:y1, x0:x1].mean() for x0, y0, x1, y1 in patches]
        expected = {"any": np.greater(share, 0), "half": np.greater_equal(share, 0.5), "all": np.equal(share, 1)}
        np.testing.assert_array_equal(patch_labels(patches, boxes, rule), expected[rule])

    @pytest.mark.parametrize("n", [3, 7, 9, 11, 13])
    def test_an_exact_half_counts_however_its_parts_are_rounded(self, n: int) -> None:
        """Cells whose sides are no binary fractions, each half covered, in one part and in two; then a little less."""
        region = (0.0, 0.0, 100.0, 70.0)
        layout = ImageLayout((70, 100), (70, 100), region, n * n, (PatchGrid(region, np.arange(n * n).reshape(n, n)),))
        for least in (1.0, 1 - 1e-6):
            in_one, in_two = [], []
            for x0, y0, x1, y1 in layout.token_boxes():
                quarter = least * (y1 - y0) / 4
                in_one.append((x0, y0, x0 + least * (x1 - x0) / 2, y1))
                in_two += [(x0, y0, x1, y0 + quarter), (x0, y1 - quarter, x1, y1)]
            for boxes in (in_one, in_two):
                assert patch_labels(layout, boxes, "half").tolist() == [least == 1] * n * n

    def test_layout_counts_only_what_lies_in_the_picture(self) -> None:
        """A 20 x 10 picture padded to a square: the upper and lower rows of cells are half or wholly padding."""
        region = (0.0, -5.0, 20.0, 15.0)
        grid = PatchGrid(region, np.arange(9).reshape(3, 3))
        layout = ImageLayout((10, 20), (42, 42), region, 10, (grid,))
        full = patch_labels(layout, [(0, 0, 20, 10)], "all")
        assert full.tolist() == [True] * 9 + [False]
        assert patch_labels(layout, [(0, -5, 20, -1)]).tolist() == [False] * 10

    def test_errors(self) -> None:
        with pytest.raises(InvalidInputError, match=r"most.*half"):
            patch_labels(self.PATCHES, [(0, 0, 1, 1)], "most")  # type: ignore[arg-type]
        with pytest.raises(InvalidInputError, match="x1 > x0"):
            patch_labels(self.PATCHES, [(5, 0, 1, 1)])
        with pytest.raises(InvalidInputError, match=r"evidence_boxes.*\(1, 3\)"):
            patch_labels(self.PATCHES, [(5, 0, 1)])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("prediction", "answers", "match", "f1"),
    [
        ("4.10", ["4.10"], 1, 1),
        ("The Cat.", ["cat"], 1, 1),
        ("  a   big\ncat!", ["Big cat"], 1, 1),
        ("“cat”", ["cat"], 1, 1),
        ("orange juice", ["juice", "apple juice"], 0, 2 / 3),
        ("the the cat", "cat cat dog", 0, 0.5),
        ("two two two cats", "two two dogs", 0, 4 / 7),
        ("theatre", ["atre"], 0, 0),
        ("", ["cat"], 0, 0),
        ("", [""], 1, 1),
        ("A", ["a."], 1, 1),  # a choice, not an article
        ("the", ["a"], 0, 0),
        ("dog", ["cat", "dog"], 1, 1),
        ("$12.50", ["12.50"], 1, 1),
    ],
)
def test_answers(prediction: str, answers: list[str] | str, match: float, f1: float) -> None:
    assert exact_match(prediction, answers) == match
    assert token_f1(prediction, answers) == pytest.approx(f1)


def test_no_answers() -> None:
    for metric in (exact_match, token_f1, anls):
        with pytest.raises(InvalidInputError, match="answers is empty"):
            metric("cat", [])


@pytest.mark.parametrize(
    ("prediction", "answers", "expected"),
    [
        ("4.10", "4.10", 1),
        ("  Kind\tRegards ", ["kind regards"], 1),
        ("abc", ["abcd"], 1 - 1 / 4),
        ("abcd", ["abxy"], 0),  # half of it is wrong: NL = 0.5 is not below the threshold
        ("abcde", ["abcxy"], 1 - 2 / 5),
        ("the cat", ["cat"], 0),  # articles count: 4 / 7
        ("cat.", ["cat"], 1 - 1 / 4),  # and so does punctuation
        ("dogs", ["cat", "dog"], 1 - 1 / 4),
        ("", ["cat"], 0),
        ("", [""], 1),
    ],
)
def test_anls(prediction: str, answers: str | list[str], expected: float) -> None:
    assert anls(prediction, answers) == pytest.approx(expected)


def test_anls_threshold() -> None:
    assert anls("abcd", "abxy", threshold=0.6) == pytest.approx(0.5)
    assert anls("abcd", "abcx", threshold=0.2) == 0
    with pytest.raises(InvalidInputError, match=r"threshold=1\.5"):
        anls("a", "b", threshold=1.5)


@settings(max_examples=60, deadline=None)
@given(first=st.text("abc", max_size=6), second=st.text("abc", max_size=6))
def test_edit_distance_equals_its_recursion(first: str, second: str) -> None:
    def recursion(a: str, b: str) -> int:
        if not a or not b:
            return len(a) + len(b)
        if a[0] == b[0]:
            return recursion(a[1:], b[1:])
        return 1 + min(recursion(a[1:], b), recursion(a, b[1:]), recursion(a[1:], b[1:]))

    assert edit_distance(first, second) == recursion(first, second)


@pytest.mark.parametrize(("agreeing", "expected"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (10, 1)])
def test_vqa_accuracy_of_ten_answers(agreeing: int, expected: float) -> None:
    """3 of 10: seven subsets of nine hold all three (1), three hold two of them (2/3): (7 + 3 · 2/3) / 10 = 0.9."""
    assert vqa_accuracy("yes", ["yes"] * agreeing + ["no"] * (10 - agreeing)) == pytest.approx(expected)


def test_vqa_accuracy_equals_the_mean_over_its_subsets() -> None:
    rng = np.random.default_rng(0)
    for n in (2, 3, 7, 10):
        answers = rng.choice(["red", "blue", "green"], n).tolist()
        subsets = [answers[:i] + answers[i + 1 :] for i in range(n)]
        expected = np.mean([min(1, subset.count("red") / 3) for subset in subsets])
        assert vqa_accuracy("Red", answers) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("said", "accepted"),
    [
        ("Two", "2"),
        ("none", "0"),
        ("the dog", "dog"),
        ("100,978", "100978"),
        ("dont know", "don't know"),
        ("coca-cola", "coca cola"),
        ("yes.", "yes"),
        ("a", "A"),
        ("$5", "5"),
    ],
)
def test_vqa_text_that_is_the_same(said: str, accepted: str) -> None:
    assert vqa_accuracy(said, [accepted] * 10) == 1


@pytest.mark.parametrize(
    ("said", "accepted"), [("girls", "girl's"), ("2:50", "250"), ("1.5", "15"), ("twenty", "20"), ("theatre", "atre")]
)
def test_vqa_text_that_differs(said: str, accepted: str) -> None:
    assert vqa_accuracy(said, [accepted] * 10) == 0


@pytest.mark.parametrize("answers", ["yes", [], ["yes"]])
def test_vqa_accuracy_needs_several_people(answers: str | list[str]) -> None:
    with pytest.raises(InvalidInputError, match="at least two"):
        vqa_accuracy("yes", answers)
