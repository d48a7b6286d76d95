"""The file of results: what is kept, what is cut off, what is refused."""

from __future__ import annotations

import json
import os
import secrets
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
    with pytest.raises(TypeError):
        write_whole(path, 3)  # type: ignore[arg-type]
    assert [file.name for file in path.parent.iterdir()] == ["summary.json"]
    assert path.read_text(encoding="utf-8") == "new ü"


@pytest.mark.parametrize("text", ["\ud800", "half \udc00 of a pair", os.fsdecode(b"r\xff")])
def test_what_utf8_has_not_is_kept_and_comes_back(path: Path, text: str) -> None:
    run = {"model": text}
    with Journal(path, run) as journal:
        journal.add({"id": text, "answer": text})
    with Journal(path, run) as journal:
        assert journal.rows == {text: {"id": text, "answer": text}}
    write_whole(path, json.dumps(run, ensure_ascii=False))
    assert json.loads(path.read_text(encoding="utf-8")) == run


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o755])
def test_a_whole_file_keeps_the_permissions_of_the_one_it_replaces(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "summary.json"
    write_whole(path, "old")
    path.chmod(mode)
    write_whole(path, b"new")
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("new", mode)


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_a_new_whole_file_has_the_permissions_of_any_new_file(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        write_whole(tmp_path / "whole", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "whole").stat().st_mode & 0o777 == 0o666 & ~mask


@pytest.mark.parametrize("content", [b"new", "new", b""])
def test_nothing_is_written_through_a_link_at_the_name_beside(
    tmp_path: Path, content: str | bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Had somebody guessed the name, the writing would end instead of going where his link leads."""
    victim, path = tmp_path / "victim", tmp_path / "summary.json"
    victim.write_text("precious")
    path.write_text("old")
    monkeypatch.setattr(secrets, "token_hex", lambda n: "guessed")
    (tmp_path / ".guessed.part").symlink_to(victim)
    with pytest.raises(FileExistsError):
        write_whole(path, content)
    assert (victim.read_text(), path.read_text()) == ("precious", "old")
    assert (tmp_path / ".guessed.part").is_symlink()


def test_names_beside_are_never_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    replace = Path.replace
    monkeypatch.setattr(Path, "replace", lambda self, to: (seen.append(self.name), replace(self, to))[1])
    for _ in range(50):
        write_whole(tmp_path / ("a" * 255), "x")  # the longest name there may be
    assert len(set(seen)) == 50


def test_a_row_is_on_the_disk_when_it_was_added(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the system has at the moment it is asked to write to the disk, which comes before add() returns."""
    on_disk: list[bytes] = []
    synced = os.fsync

    def fsync(file: int) -> None:
        synced(file)
        on_disk.append(path.read_bytes())

    monkeypatch.setattr(os, "fsync", fsync)
    with Journal(path, RUN) as journal:
        for number, name in enumerate("abc", 2):
            journal.add({"id": name})
            assert len(on_disk) == number
            assert on_disk[-1].endswith(f'{{"id": "{name}"}}\n'.encode())


WITHOUT = """
import importlib, pkgutil, sys
for name in ("fcntl", "resource", "termios", "pwd", "grp"):
    sys.modules[name] = None
import vea_sdk
for module in pkgutil.walk_packages(vea_sdk.__path__, "vea_sdk."):
    if not module.name.endswith(("_C", "__main__")):
        importlib.import_module(module.name)
from vea_sdk.errors import InvalidInputError
from vea_sdk.journal import Journal
from vea_sdk.monitor.sinks import JsonLinesSink, LoggingSink
with Journal(sys.argv[1], {"seed": 0}) as journal:
    journal.add({"id": "a"})
    try:
        Journal(sys.argv[1], {"seed": 0})
    except InvalidInputError as error:
        assert "another process" in str(error)
    else:
        raise AssertionError("opened twice")
LoggingSink()
try:
    JsonLinesSink(sys.argv[1])
except InvalidInputError as error:
    assert "fcntl" in str(error) and "CallbackSink" in str(error), error
else:
    raise AssertionError("a sink without locks")
"""


def test_systems_without_posix_modules_import_everything_and_keep_results(path: Path) -> None:
    """As on Windows; only the JSON-lines sink, which locks the file that it renames, says that it cannot."""
    path.parent.mkdir()
    search = os.pathsep.join(sys.path)
    command = [sys.executable, "-P", "-W", "ignore", "-c", WITHOUT, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": search})
    assert done.returncode == 0, done.stderr
    assert path.read_text() == '{"run": {"seed": 0}}\n{"id": "a"}\n'
