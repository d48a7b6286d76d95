"""The script that puts faults into the package: it tells those that tests notice from those that nobody does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mutants import run as script

ROOT = Path(__file__).parents[1]
Judge = Callable[..., tuple[int, list[str]]]

PACKAGE = "def half(n):\n    return n // 2\n\n\ndef twice(n):\n    return n * 2\n"
TESTS = """\
import os, time
from vea_sdk import half, twice

def test_half():
    assert half(4) == 2

def test_twice():
    assert twice(2) == 4

def test_ends():
    time.sleep(0 if half(4) == 2 else 60)

def test_crash():
    if half(4) != 2: os.abort()

def test_wrong():
    assert False
"""
MUTANT = """
[[mutant]]
name = "{0}"
file = "vea_sdk/__init__.py"
old = "{1}"
new = "{2}"
tests = ["tests/test_it.py::{3}"]
"""


@pytest.fixture
def judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Judge:
    """Faults in a package of two functions -> (exit code, lines): (name, old, new, test) each."""
    monkeypatch.setattr(script, "PRELOADED", script.PLUGINS)
    monkeypatch.setattr(script, "PATIENCE", 1.0)
    for folder in ("vea_sdk", "tests/mutants"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "vea_sdk" / "__init__.py").write_text(PACKAGE)
    (tmp_path / "vea_sdk" / "_C.so").touch()
    (tmp_path / "tests" / "test_it.py").write_text(TESTS)

    def judge(*faults: tuple[str, str, str, str], options: tuple[str, ...] = ()) -> tuple[int, list[str]]:
        (tmp_path / "tests" / "mutants" / "all.toml").write_text("".join(MUTANT.format(*fault) for fault in faults))
        code = script.main(["--jobs", "1", *options], tmp_path)
        assert (tmp_path / "vea_sdk" / "__init__.py").read_text() == PACKAGE
        return code, capsys.readouterr().out.splitlines()

    return judge


NOTICED = ("noticed", "n // 2", "n // 3", "test_half")
UNSEEN = ("unseen", "n * 2", "n + n", "test_twice")


def test_what_is_noticed_and_what_is_not(judged: Judge) -> None:
    code, lines = judged(
        NOTICED, UNSEEN, ("endless", "n // 2", "n", "test_ends"), ("crash", "n // 2", "n // 1", "test_crash")
    )
    assert sorted(lines[:4]) == ["crash: killed", "endless: killed", "noticed: killed", "unseen: SURVIVED"]
    assert lines[4:] == ["3 of 4 killed (75%); 4 are listed"]
    assert code == 1
    assert judged(NOTICED)[0] == 0


@pytest.mark.parametrize(
    ("fault", "problem"),
    [
        (("gone", "n // 5", "n // 3", "test_half"), "gone: does not apply: its old text stands 0 times"),
        (("twofold", "return n", "return 1 + n", "test_half"), "twofold: does not apply: its old text stands 2 times"),
        (("wrong", "n // 2", "n // 3", "test_wrong"), "wrong: its tests do not pass without it (1)"),
        (("absent", "n // 2", "n // 3", "test_absent"), "absent: its tests do not pass without it (4)"),
    ],
)
def test_a_fault_that_says_nothing_is_an_error(judged: Judge, fault: tuple[str, str, str, str], problem: str) -> None:
    code, lines = judged(NOTICED, fault)
    assert code == 1
    assert any(line.startswith(problem) for line in lines)
    assert "noticed: killed" in lines
    assert lines[-1] == "1 of 1 killed (100%), 1 that says nothing; 2 are listed"


def test_a_part_of_them(judged: Judge) -> None:
    assert judged(NOTICED, UNSEEN, options=("noti",)) == (0, ["noticed: killed", "1 of 1 killed (100%); 2 are listed"])
    assert judged(NOTICED, options=("--minutes", "0")) == (1, ["0 of 0 killed (0%); 1 are listed"])


def test_the_seed_chooses_their_order() -> None:
    listed = script.mutants(ROOT / "tests" / "mutants")
    orders = [[one.name for one in script.in_order(listed, seed)] for seed in ("a", "a", "b")]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2])
    assert len(listed) >= 40


@pytest.mark.skipif(not (ROOT / "csrc").is_dir(), reason="needs a source checkout")
def test_every_fault_applies() -> None:
    for one in script.mutants(ROOT / "tests" / "mutants"):
        text = (ROOT / one.file).read_text(encoding="utf-8")
        assert one.applied(text) != text
