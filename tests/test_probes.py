"""Probes: boxes against what changes when the evidence is left out, answers against the pixels drawn."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
import pytest
from scipy.ndimage import label

import vea_sdk as vea
from vea_sdk.errors import InvalidInputError
from vea_sdk.grounding.probes import KINDS, SCRIPTS
from vea_sdk.grounding.probes.compose import SIZES, compose
from vea_sdk.grounding.probes.lettering import Lettering
from vea_sdk.grounding.probes.sheet import COLOURS

CASES = [(seed, SIZES[seed % len(SIZES)], seed % 3) for seed in range(12)]


def pair(kind: str, seed: int, size: tuple[int, int], clutter: int) -> tuple[vea.Sample, np.ndarray]:
    """A probe, and which of its pixels are evidence: those that change without it."""
    letters = Lettering()
    drawn, blank = (
        compose(kind, Random(seed), letters, letters.words("latin"), size, clutter, blank=blank)
        for blank in (False, True)
    )
    assert drawn.question == blank.question
    assert drawn.boxes == blank.boxes
    return drawn, (np.asarray(drawn.image) != np.asarray(blank.image)).any(-1)


@pytest.mark.parametrize("kind", KINDS)
def test_the_box_is_tight_around_the_evidence(kind: str) -> None:
    for seed, size, clutter in CASES:
        sample, evidence = pair(kind, seed, size, clutter)
        (box,) = sample.boxes
        rows, cols = evidence.any(1).nonzero()[0], evidence.any(0).nonzero()[0]
        found = (cols[0], rows[0], cols[-1] + 1, rows[-1] + 1)
        np.testing.assert_allclose(found, box, atol=1)  # the faintest edge of a letter may change nothing
        assert box[0] <= found[0]
        assert box[1] <= found[1]
        assert found[2] <= box[2]
        assert found[3] <= box[3]
        assert 0 <= box[0] < box[2] <= sample.image.width
        assert 0 <= box[1] < box[3] <= sample.image.height


@pytest.mark.parametrize("kind", ["document", "receipt", "table"])
def test_what_stands_in_the_box_is_the_answer(kind: str) -> None:
    """The evidence has the outline of the answer, written afresh at the size that fits its height."""
    for seed, size, clutter in CASES:
        sample, evidence = pair(kind, seed, size, clutter)
        x0, y0, x1, y1 = map(int, sample.boxes[0])
        found = evidence[y0:y1, x0:x1]

        def matches(text: str, found: np.ndarray = found) -> float:
            written = (np.asarray(Lettering().ink(text, height)[0]) > 1 for height in range(6, 90))
            return max((float((one == found).mean()) for one in written if one.shape == found.shape), default=0)

        other = sample.answers[0].translate(str.maketrans("0123456789", "1234567890"))
        assert matches(sample.answers[0]) > 0.98 > matches(other)


def test_as_many_dots_as_the_answer_says() -> None:
    for seed, size, clutter in CASES:
        sample, evidence = pair("counting", seed, size, clutter)
        assert str(label(evidence)[1]) == sample.answers[0]
        assert len(sample.answers) == 2  # as a word, too


def test_the_shape_has_the_colour_of_the_answer() -> None:
    for seed, size, clutter in CASES:
        sample, evidence = pair("shapes", seed, size, clutter)
        inside = np.asarray(sample.image)[evidence]
        assert (inside == COLOURS[sample.answers[0]]).all()


def test_bars_grow_with_their_values() -> None:
    for seed, size, clutter in CASES:
        sample, evidence = pair("chart", seed, size, clutter)
        widths = evidence.sum(1)
        bar = widths >= widths.max() - 1  # the number above is narrower, or its letters leave gaps
        room = size[1] - (3 + 1 + 2) * 5 * min(size) / 100
        assert bar.sum() / room == pytest.approx(int(sample.answers[0]) / 100, abs=0.02)


def test_the_same_seed_gives_the_same_bytes_and_more_only_adds() -> None:
    def bytes_of(samples: list[vea.Sample]) -> list[object]:
        return [(one.image.tobytes(), one.question, one.answers, one.boxes, one.id, one.kind) for one in samples]

    ten = bytes_of(vea.probes(10))
    assert bytes_of(vea.probes(10)) == ten
    assert bytes_of(vea.probes(5)) == ten[:5]
    other = bytes_of(vea.probes(10, seed=1))
    assert all(a[0] != b[0] for a, b in zip(ten, other, strict=True))  # type: ignore[index]


def test_kinds_take_turns_and_sizes_and_clutter_vary() -> None:
    samples = vea.probes(42)
    assert [one.kind for one in samples] == list(KINDS) * 6
    assert len({one.id for one in samples}) == 42
    assert len({one.image.size for one in samples}) == len(SIZES)
    assert {one.kind for one in vea.probes(4, kinds=["table", "chart"])} == {"table", "chart"}
    assert {one.image.size for one in vea.probes(4, sizes=[(300, 200)])} == {(300, 200)}
    assert vea.probes(0) == []


@pytest.mark.parametrize("size", [(200, 200), (200, 900), (1600, 200)])
def test_odd_sizes(size: tuple[int, int]) -> None:
    for sample in vea.probes(21, sizes=[size]):
        x0, y0, x1, y1 = sample.boxes[0]
        assert 0 <= x0 < x1 <= size[0]
        assert 0 <= y0 < y1 <= size[1]


def test_answers_cannot_be_guessed() -> None:
    for kind in set(KINDS) - {"shapes", "counting"}:  # eight colours and nine numbers
        answers = [one.answers[0] for one in vea.probes(60, kinds=[kind], sizes=[(300, 300)])]
        assert max(answers.count(answer) for answer in answers) <= 4, kind


@pytest.fixture(scope="module")
def wide_font() -> Path:
    matplotlib = pytest.importorskip("matplotlib")
    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"


def test_scripts_of_a_font(wide_font: Path) -> None:
    assert Lettering().scripts() == ["latin"]
    assert Lettering(wide_font).scripts() == list(SCRIPTS)
    asked = "".join(one.question for one in vea.probes(3 * len(KINDS), font=wide_font))
    assert any("α" <= letter <= "ω" for letter in asked)
    assert any("а" <= letter <= "я" for letter in asked)
    greek = vea.probes(4, kinds=["document"], font=wide_font, scripts=["greek"])
    assert all(any(word in one.question for word in SCRIPTS["greek"].split()) for one in greek)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": -1}, "n=-1"),
        ({"kinds": ["passport"]}, "'passport' is unknown.*receipt"),
        ({"kinds": []}, "kinds: is empty"),
        ({"scripts": ["greek"]}, "no glyphs for greek.*DejaVu"),
        ({"scripts": ["runes"]}, "'runes' is unknown.*latin"),
        ({"scripts": []}, "scripts is empty"),
        ({"font": "absent.ttf"}, r"absent\.ttf.*cannot be read"),
        ({"font": __file__}, "cannot be read"),
        ({"sizes": [(100, 400)]}, "at least 200"),
        ({"sizes": []}, "at least 200"),
        ({"clutter": [9]}, "9 is unknown"),
    ],
)
def test_bad_input(options: dict, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        vea.probes(**({"n": 1} | options))
