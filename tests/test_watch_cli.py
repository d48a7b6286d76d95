"""``vea watch``, and the tail it reads with: each record once, through rotation, wrong lines named."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from records import record, stationary
from rich.console import Console
from typer.testing import CliRunner, Result

from vea_sdk.cli.app import app
from vea_sdk.cli.watch_screen import Follower, screen
from vea_sdk.errors import InvalidInputError
from vea_sdk.monitor.sinks import JsonLinesSink
from vea_sdk.monitor.tail import Tail


def vea(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "records.jsonl"


def requests(tail: Tail) -> list[str]:
    return [one.request for one in tail.poll()]


# --- the tail ------------------------------------------------------------------------------------------------


def test_tail_waits_for_the_file_and_for_whole_lines(path: Path) -> None:
    tail = Tail(path)
    assert requests(tail) == []
    line = json.dumps(record(0).to_dict()).encode() + b"\n"
    path.write_bytes(line + line[:50])
    assert requests(tail) == ["r0"]
    assert requests(tail) == []
    with path.open("ab") as file:
        file.write(line[50:])
    assert requests(tail) == ["r0"]
    assert tail.wrong_lines == 0
    tail.close()


@pytest.mark.parametrize("step", [1, 3, 7])
def test_tail_reads_each_record_once_through_rotations(path: Path, step: int) -> None:
    """Up to several rotations come between two looks; enough files are kept for all of them."""
    sink = JsonLinesSink(path, max_bytes=3000, keep=9)
    tail, seen = Tail(path), []
    for i in range(60):
        sink.write(record(i))
        if i % step == 0:
            seen += requests(tail)
    seen += requests(tail)
    assert Path(f"{path}.9").exists()
    assert seen == [f"r{i}" for i in range(60)]
    assert (tail.gaps, tail.wrong_lines) == (0, 0)


def test_tail_says_when_rotation_was_faster(path: Path) -> None:
    sink, tail = JsonLinesSink(path, max_bytes=1, keep=2), Tail(path)
    sink.write(record(0))
    assert requests(tail) == ["r0"]
    for i in range(1, 9):
        sink.write(record(i))
    assert requests(tail) == ["r6", "r7", "r8"]
    assert tail.gaps == 1


@pytest.mark.parametrize("back", [60, 3600, 10**9])
def test_tail_goes_on_when_the_clock_was_set_back(path: Path, back: int) -> None:
    sink, tail = JsonLinesSink(path, max_bytes=1, keep=2), Tail(path)
    sink.write(record(0))
    assert requests(tail) == ["r0"]
    before = path.stat().st_mtime - back
    for i in range(1, 5):
        sink.write(record(i))
        os.utime(path, (before + i, before + i))
    assert requests(tail)[-1] == "r4"
    assert tail.gaps == 1
    sink.write(record(5))
    assert requests(tail) == ["r5"]


def test_tail_begins_with_the_rotated_files(path: Path) -> None:
    sink = JsonLinesSink(path, max_bytes=1)
    for i in range(4):
        sink.write(record(i))
    assert requests(Tail(path)) == ["r3"]
    assert requests(Tail(path, rotated=True)) == ["r0", "r1", "r2", "r3"]


def test_tail_reads_an_emptied_file_from_its_start(path: Path) -> None:
    sink, tail = JsonLinesSink(path), Tail(path)
    for i in range(3):
        sink.write(record(i))
    assert len(requests(tail)) == 3
    os.truncate(path, 0)
    sink.write(record(3))
    assert requests(tail) == ["r3"]


def test_tail_names_wrong_lines(path: Path) -> None:
    good = record(0).to_dict()
    wrong = [
        b'{"request": "hal',
        b"[1, 2]",
        b"\xff\xfe",
        json.dumps(good | {"schema": 99}).encode(),
        json.dumps({"schema": 1}).encode(),
        json.dumps(good | {"mean": good["mean"] | {"image_mass": "much"}}).encode(),
        json.dumps(good | {"time": "noon"}).encode(),
        json.dumps(good | {"layers": 3}).encode(),
        json.dumps(good | {"mean": None}).encode(),
        json.dumps(good | {"timings": [1]}).encode(),
        b"[" * 100_000,
    ]
    path.write_bytes(b"\n".join([*wrong, b"", json.dumps(good).encode(), b""]))
    tail = Tail(path)
    assert requests(tail) == ["r0"]
    assert tail.wrong_lines == len(wrong)
    for number, line in enumerate(tail.wrong, 1):
        assert line.startswith(f"{path}:{number}: ")
    assert "schema 99" in tail.wrong[3]


HUGE = int("9" * 400)
NO_RECORDS: list[tuple[str, Any]] = [  # of a field, or of one inside it, and what should not be there
    ("request", 7),
    ("request", None),
    ("request", ["r1"]),
    ("time", -1.0),
    ("time", 253_402_300_800.0),  # the year 10000
    ("time", 1e30),
    ("time", -1.0),
    ("time", "noon"),
    ("time", True),
    ("time", HUGE),
    ("time", float("inf")),
    ("time", float("nan")),
    ("model", {"name": "tiny"}),
    ("model", 1.5),
    ("adapter", None),
    ("layers", 3),
    ("layers", "23"),
    ("layers", [2, "3"]),
    ("layers", [HUGE]),
    ("images", 1.5),
    ("image_tokens", None),
    ("image_tokens", "many"),
    ("image_tokens", float("inf")),
    ("image_tokens", -4),
    ("prompt_tokens", HUGE),
    ("generated_tokens", [8]),
    ("mean", None),
    ("mean", [0.1, 0.2]),
    ("mean.image_mass", "much"),
    ("mean.image_mass", float("-inf")),
    ("mean.entropy", HUGE),
    ("mean.peak", [0.5]),
    ("per_layer", {"2": 0.1}),
    ("per_layer", [None]),
    ("per_layer", [{"image_mass": 0.1}]),
    ("agreement", 1e300),
    ("agreement", {}),
    ("top_patches", [5]),
    ("top_patches", [{"token": 1, "score": 0.1, "box": [1, 2]}]),
    ("top_patches", None),
    ("spikes", 0.5),
    ("border_share", "none"),
    ("nan", None),
    ("nan", 1e3),
    ("trace", [0.1]),
    ("trace", 0.1),
    ("trace", [None, "x", None]),
    ("timings", [1]),
    ("timings", {"total": "long"}),
    ("timings", {"total": HUGE}),
    ("timings", None),
    ("dropped", "no"),
    ("dropped", 0),
    ("finished", 3),
    ("unread", False),
    ("rows", [0.1]),
    ("content", "text"),
    ("schema", True),
    ("schema", 99),
]


def line_with(field: str, value: Any) -> str:
    fields = record(0).to_dict()
    *outer, name = field.split(".")
    inside = fields
    for one in outer:
        inside = inside[one]
    inside[name] = value
    return json.dumps(fields)


@pytest.mark.parametrize(
    ("field", "value"), NO_RECORDS, ids=[f"{field}-{n}" for n, (field, _) in enumerate(NO_RECORDS)]
)
def test_lines_that_are_no_records_are_named_and_passed_over(path: Path, field: str, value: Any) -> None:
    good = json.dumps(record(1).to_dict())
    path.write_text(f"{good}\n{line_with(field, value)}\n{good}\n")
    for option in ("--json", "--once"):
        result = vea("watch", path, option)
        assert result.exit_code == 0, (result.stderr, result.exception)
        assert f"{path}:2: " in result.stderr
        assert field in result.stderr
        assert len(result.stderr) < 400
        if option == "--json":
            found = json.loads(result.stdout, parse_constant=pytest.fail)
            assert (found["wrong_lines"], found["models"]["tiny"]["requests"]) == (1, 2)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists), st.data())
def test_whatever_stands_in_a_field_a_record_can_be_shown_or_is_none(value: Any, data: st.DataObject) -> None:
    """What is read goes through the watch and the screen, and is written as JSON that has no NaN."""
    field = data.draw(st.sampled_from([*record(0).to_dict(), "mean.peak", "timings.total"]))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "records.jsonl"
        path.write_text(line_with(field, value) + "\n")
        follower = Follower(path, 20, 10, False)
        follower.read()
        json.dumps(follower.summary(), allow_nan=False)
        Console(file=io.StringIO()).print(screen(follower))
        assert len(follower.last) + follower.tail.wrong_lines == 1


def test_a_file_that_may_not_be_read_is_named(path: Path) -> None:
    path.touch()
    Path(f"{path}.1").mkdir()
    result = vea("watch", path, "--rotated", "--once")
    assert isinstance(result.exception, InvalidInputError)
    assert f"{path}.1" in str(result.exception)


# --- the command ---------------------------------------------------------------------------------------------


def test_one_object_for_machines(path: Path) -> None:
    sink = JsonLinesSink(path)
    records = [*stationary(300, seed=1), *(record(300 + i, 0.0001) for i in range(8))]
    for one in records:
        sink.write(one)
    with path.open("a") as file:
        file.write("no record\n")
    result = vea("watch", path, "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["wrong_lines"] == 1
    assert f"{path}:309: " in result.stderr
    model = found["models"]["tiny"]
    assert model["requests"] == 308
    assert model["statistics"]["image_mass"]["count"] == 308
    assert "image_ignored" in {alert["kind"] for alert in found["firing"]}


def test_a_table_for_people(path: Path) -> None:
    sink = JsonLinesSink(path)
    for i in range(3):
        sink.write(record(i, model="org/[bold]name"))
    sink.write(record(3, nan=2, model="org/[bold]name", request="[red]id[/red]"))
    result = vea("watch", path, "--once", "--rows", 2)
    assert result.exit_code == 0, result.stderr
    for text in ("org/[bold]name", "4 requests", "image mass", "0.4", "NaN 2", "nan firing"):
        assert text in result.stdout
    assert "r1" not in result.stdout


SHOWN = {  # by a terminal: nothing but the escape
    "\x1b[2J\x1b[Hgone": r"\x1b[2J\x1b[Hgone",
    "\x1b]0;title\x07": r"\x1b]0;title\x07",
    "\x9b31mred": r"\x9b31mred",
    "a\rb\x08\x00": r"a\rb\x08\x00",
    "two\nlines": r"two\nlines",
    "\u202efdp.exe": r"\u202efdp.exe",
    "half \ud800": r"half \ud800",
}


def commands(text: str) -> set[str]:
    """Characters that a terminal acts on; colours and the end of a line are the command's own."""
    own = re.sub(r"\x1b\[[0-9;]*m|\n", "", text)
    return {one for one in own if unicodedata.category(one) in ("Cc", "Cs", "Zl", "Zp") or one == "\u202e"}


@pytest.mark.parametrize("text", SHOWN)
def test_what_others_wrote_is_shown_and_not_executed(tmp_path: Path, text: str) -> None:
    path = tmp_path / text.encode("utf-8", "replace").decode().replace("\x00", "")
    sink = JsonLinesSink(path)
    sink.write(record(0, request=text, model=text, nan=1))  # with an alert of that model
    sink.write(record(1, model=text, request="r1", finished=text))
    with path.open("a") as file:
        file.write(json.dumps(record(0).to_dict() | {"time": text}) + "\n")
    result = vea("watch", path, "--once")
    assert result.exit_code == 0, result.exception
    assert SHOWN[text] in result.stdout
    assert not commands(result.stdout + result.stderr)
    assert result.stderr.count("\n") == 1
    follower = Follower(path, 20, 10, False)
    follower.read()
    live = Console(file=io.StringIO(), force_terminal=True, width=300)
    live.print(screen(follower))
    assert SHOWN[text][:13] in live.file.getvalue()
    assert not commands(live.file.getvalue())


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "shift_jis"])
def test_a_terminal_that_lacks_a_letter_shows_its_escape(path: Path, encoding: str) -> None:
    """The dash of an absent figure and the names of models, among others."""
    JsonLinesSink(path).write(record(0, mass=None, model="modèle-東京-👁", request="größe"))
    command = [sys.executable, "-P", "-m", "vea_sdk", "watch", str(path), "--once"]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    done = subprocess.run(command, capture_output=True, env=env)
    assert done.returncode == 0, done.stderr
    assert "modèle-東京-👁: 1 requests" in re.sub(
        r"\\(?:x(..)|u(....)|U(........))",
        lambda found: chr(int(next(filter(None, found.groups())), 16)),
        done.stdout.decode(encoding),
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["absent.jsonl"], "absent.jsonl"), (["."], "no file"), (["FILE", "--window", 3], "--window"), ([], "FILE.jsonl")],
)
def test_wrong_usage(path: Path, arguments: list[object], message: str) -> None:
    path.touch()
    result = vea("watch", *[path if argument == "FILE" else argument for argument in arguments])
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_file_without_records_fails(path: Path) -> None:
    path.write_text("nothing\n")
    result = vea("watch", path, "--json")
    assert isinstance(result.exception, InvalidInputError)
    assert f"{path}:1: " in result.stderr
    assert result.stdout == ""


def test_follow_prints_a_line_per_look_that_found_something(path: Path) -> None:
    command = [sys.executable, "-P", "-m", "vea_sdk", "watch", str(path), "--json", "--follow", "--interval", "0.05"]
    search = os.pathsep.join(sys.path)
    env = os.environ | {"PYTHONPATH": search}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as process:
        assert process.stdout is not None
        try:
            assert json.loads(process.stdout.readline())["models"] == {}  # it waits for the file
            sink = JsonLinesSink(path, max_bytes=1)
            for i in range(3):
                sink.write(record(i))
                time.sleep(0.01)
            found = 0
            while found < 3:
                found = json.loads(process.stdout.readline())["models"]["tiny"]["requests"]
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=90) == 0
        finally:
            process.kill()
