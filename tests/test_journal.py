"""The file of results: what is kept, what is cut off, what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vea_sdk.errors import InvalidInputError
from vea_sdk.journal import Journal
from vea_sdk.whole_file import write_whole

RUN = {"model": "m", "layers": [1, 2]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "results.jsonl"


def kept(path: Path | None, *rows: dict) -> dict:
    with Journal(path, RUN) as journal:
        for row in rows:
            journal.add(row)
        return dict(journal.rows)


def test_rows_come_back(path: Path) -> None:
    first = {"id": "a", "value": 0.1 + 0.2, "text": "line\r\nbreak \u2028 ü"}
    assert kept(path, first) == {"a": first}
    assert kept(path, {"id": "b", "box": (1, 2)}) == {"a": first, "b": {"id": "b", "box": [1, 2]}}
    assert kept(path) == {"a": first, "b": {"id": "b", "box": [1, 2]}}
    assert len(path.read_text(encoding="utf-8").split("\n")) == 4  # the run, two rows, and the end
    assert kept(None, first) == {"a": first}


@pytest.mark.parametrize("cut", range(1, 40))
def test_half_a_last_line_is_cut_off(path: Path, cut: int) -> None:
    kept(path, {"id": "a", "text": "ü"}, {"id": "b", "text": "ü"})
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    rows = kept(path)
    assert set(rows) in ({"a"}, {"a", "b"}, set())
    for name in ("a", "b"):
        if name not in rows:
            kept(path, {"id": name, "text": "ü"})
    assert path.read_bytes() == whole


def test_a_run_that_died_before_its_first_line(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b'{"run": {"mod')  # what is written is a part of that
    assert kept(path, {"id": "a"}) == {"a": {"id": "a"}}
    assert kept(path) == {"a": {"id": "a"}}


def test_another_run_is_refused(path: Path) -> None:
    kept(path, {"id": "a"})
    with pytest.raises(InvalidInputError, match=r"layers was \[1, 2\], now \[3\]; seed was None, now 7"):
        Journal(path, {"model": "m", "layers": (3,), "seed": 7})
    with Journal(path, {"model": "m", "layers": (1, 2)}) as journal:  # a tuple is a list in JSON
        assert list(journal.rows) == ["a"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"run": RUN}\n{"id": "a"}\nnot json\n{"id": "b"}\n', "line 3 is no JSON"),
        ('{"run": RUN}\n{"name": "a"}\n', "line 2 is no row"),
        ('{"run": RUN}\n[1]\n', "line 2 is no row"),
        ('{"run": RUN}\n{"id": "a"}\n{"id": "a"}\n', "line 3: the id 'a' is there already"),
        ('{"id": "a"}\n', "no results of a run"),
        ("a note of somebody's", "no results of a run"),
        ('{"run": {"model": "m", "layers": [3]}}\n{"id": "b", "va', "results of another run"),
    ],
)
def test_broken_files_are_refused_and_left_as_they_are(path: Path, content: str, message: str) -> None:
    path.parent.mkdir()
    content = content.replace("RUN", json.dumps(RUN))
    path.write_text(content)
    with pytest.raises(InvalidInputError, match=message):
        Journal(path, RUN)
    assert path.read_text() == content


def test_no_such_file(path: Path) -> None:
    path.parent.mkdir()
    path.mkdir()
    for place in (path, Path("/dev/null/results.jsonl")):
        with pytest.raises(InvalidInputError, match="cannot be kept"):
            Journal(place, RUN)


def test_nothing_is_doubled_and_nothing_that_is_no_number_is_kept(path: Path) -> None:
    with Journal(path, RUN) as journal:
        journal.add({"id": "a"})
        with pytest.raises(InvalidInputError, match="'a' is there already"):
            journal.add({"id": "a"})
        with pytest.raises(ValueError, match="JSON"):
            journal.add({"id": "b", "value": float("nan")})
    assert set(kept(path)) == {"a"}


def test_a_killed_process_leaves_its_rows_and_no_lock(path: Path) -> None:
    code = (
        "import sys, time; from vea_sdk.journal import Journal\n"
        f"journal = Journal(sys.argv[1], {RUN!r})\n"
        "journal.add({'id': 'a'}); print('ready', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-P", "-c", code, str(path)], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        with pytest.raises(InvalidInputError, match="another process"):
            Journal(path, RUN)
    finally:
        process.kill()
        process.wait()
    deadline = time.monotonic() + 5
    while True:
        try:
            assert kept(path) == {"a": {"id": "a"}}
            break
        except InvalidInputError:
            assert time.monotonic() < deadline


def test_whole_files(tmp_path: Path) -> None:
    path = tmp_path / "new" / "summary.json"
    write_whole(path, "old")
    write_whole(path, "new ü")
    assert path.read_text(encoding="utf-8") == "new ü"
    with pytest.raises(UnicodeEncodeError):
        write_whole(path, "\ud800")
    assert [file.name for file in path.parent.iterdir()] == ["summary.json"]
    assert path.read_text(encoding="utf-8") == "new ü"
