"""The command ``vea``: one JSON object on stdout, everything else on stderr, exit codes 0, 1 and 2."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
import unicodedata
import warnings
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vea_sdk import tiny
from vea_sdk.cli.output import _item, report


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "card.png"
    Image.effect_mandelbrot((150, 100), (-2, -1, 1, 1), 20).save(path)
    return path


@pytest.fixture(autouse=True)
def few_pages(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """All but one test can do with two counted pages."""
    if request.node.name != "test_demo":
        monkeypatch.setattr(importlib.import_module("vea_sdk.cli.demo"), "PAGES", 2)


def test_demo(run: Any, tmp_path: Path) -> None:
    code, out, err = run("demo", "--json", "--out", tmp_path / "pictures")
    assert code == 0, err
    fields = json.loads(out)
    sample = tiny.demo_scene()
    assert (fields["question"], fields["expected"]) == (sample.question, sample.answers[0])
    assert fields["baseline"] not in ("", fields["expected"])
    assert fields["answer"] == fields["expected"]
    assert 0.8 < fields["auroc"] <= 1
    assert set(fields["timings"]) == {"load", "prepare", "baseline", "evidence", "answer", "count"}
    chosen = [one for one in fields["candidates"] if one["chosen"]]
    assert [(one["answer"], one["certainty"]) for one in chosen] == [(fields["answer"], fields["certainty"])]
    x0, y0, x1, y1 = fields["window"]
    bx0, by0, bx1, by1 = sample.boxes[0]
    assert x0 <= bx0 < bx1 <= x1
    assert y0 <= by0 < by1 <= y1
    first, closer = re.findall(r"(\d+) right at first, (\d+) closer", fields["gain"])[0]
    assert int(fields["control"].split()[-1]) < int(closer)
    assert int(first) < int(closer)
    for name in ("overlay", "highlighted", "windows"):
        with Image.open(fields[name]) as shown:
            assert shown.size == sample.image.size


def test_demo_prints_lines_without_json(run: Any, tmp_path: Path) -> None:
    code, out, _ = run("demo", "--out", tmp_path)
    assert code == 0
    assert "question" in out
    assert "baseline" in out


def test_ask(run: Any, checkpoint: Path, picture: Path, tmp_path: Path) -> None:
    arguments = ("--model", checkpoint, "--layers", "1,3", "--max-new-tokens", 2, "--device", "cpu", "--out", tmp_path)
    code, out, err = run("ask", picture, "what is it?", *arguments, "--json")
    assert code == 0, err
    fields = json.loads(out)
    assert fields["layers"] == [1, 3]
    for name in ("overlay", "highlighted"):
        with Image.open(fields[name]) as shown:
            assert shown.size == (150, 100)
    code, out, err = run("ask", picture, "what is it?", *arguments, "--mode", "none", "--json")
    assert code == 0, err
    assert json.loads(out)["answer"] == fields["baseline"]
    assert "highlighted" not in json.loads(out)


def test_attend(run: Any, checkpoint: Path, picture: Path, tmp_path: Path) -> None:
    arguments = ("--model", checkpoint, "--layers", "0.5:1.0", "--top", 3, "--out", tmp_path, "--json")
    code, out, err = run("attend", picture, "what is it?", *arguments)
    assert code == 0, err
    fields = json.loads(out)
    assert fields["layers"] == [2, 3]
    assert fields["grid"] == [8, 8]
    assert len(fields["top_patches"]) == 3
    for x0, y0, x1, y1 in fields["top_patches"]:
        assert 0 <= x0 < x1 <= 150
        assert 0 <= y0 < y1 <= 100


def test_doctor(run: Any) -> None:
    code, out, _ = run("doctor", "--json")
    assert code == 0
    fields = json.loads(out)
    assert fields["native"] is True
    assert {"llava", "llava_next", "qwen2_vl", "qwen2_5_vl", "gemma3", "internvl"} <= set(fields["architectures"])


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nothing"], 2, "No such command"),
        (["ask", "absent.png", "what?", "--model", "m"], 2, "absent.png"),
        (["ask", "PICTURE", "what?"], 2, "--model"),
        (["ask", "PICTURE", "what?", "--model", "CHECKPOINT", "--mode", "blur"], 2, "blur"),
        (["ask", "PICTURE", "what?", "--model", "CHECKPOINT", "--layers", "deep"], 2, "deep"),
        (["ask", "PICTURE", "what?", "--model", "CHECKPOINT", "--layers", "17"], 1, "layer 17 is out of range"),
        (["attend", "PICTURE", "what?", "--model", "./absent"], 1, "no checkpoint folder"),
        (["attend", "BROKEN", "what?", "--model", "CHECKPOINT", "--layers", "1"], 1, "cannot be read as a picture"),
        (["attend", "PICTURE", "what?", "--model", "CHECKPOINT", "--layers", "1", "--top", "999"], 1, "--top 999"),
        (["attend", "PICTURE", "what?", "--model", "CHECKPOINT", "--device", "moon"], 1, "moon"),
        (["attend", "PICTURE", "what?", "--model", "CHECKPOINT", "--dtype", "float7"], 1, "float7"),
    ],
)
def test_errors(
    run: Any, checkpoint: Path, picture: Path, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    places = {"PICTURE": str(picture), "CHECKPOINT": str(checkpoint), "BROKEN": str(broken)}
    found, out, err = run(*[places.get(argument, argument) for argument in arguments], "--json")
    assert found == code
    assert message in err
    assert out == ""


def test_the_module_is_the_same_program() -> None:
    command = [sys.executable, "-P", "-m", "vea_sdk", "doctor", "--json"]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True)
    assert done.returncode == 0
    assert json.loads(done.stdout)["python"]


def test_version(run: Any) -> None:
    from vea_sdk import __version__

    code, out, _ = run("--version")
    assert (code, out) == (0, f"vea-sdk {__version__}\n")


def test_completion_is_offered() -> None:
    """By typer's own protocol, as a shell asks for it."""
    environment = {**os.environ, "_VEA_COMPLETE": "complete_bash", "COMP_WORDS": "vea att", "COMP_CWORD": "1"}
    program = "import sys; from vea_sdk.cli import main; sys.argv[0] = 'vea'; main()"
    done = subprocess.run([sys.executable, "-P", "-c", program], env=environment, capture_output=True, text=True)
    assert "attend" in done.stdout.split()


@pytest.mark.parametrize("command", ["demo", "ask", "attend"])
def test_help_explains_every_name_in_the_output(run: Any, picture: Path, tmp_path: Path, command: str) -> None:
    options = {
        "demo": [],
        "ask": [picture, "what is it?", "--model", "tiny", "--words", "--max-new-tokens", 3],
        "attend": [picture, "what is it?", "--model", "tiny"],
    }[command]
    code, out, err = run(command, *options, "--out", tmp_path, "--json")
    assert code == 0, err
    code, help_text, _ = run(command, "--help")
    assert code == 0
    for name in json.loads(out):
        assert f"{name}: " in help_text, name


@pytest.mark.parametrize("command", ["profile", "analyze", "eval"])
def test_help_explains_every_line_of_the_output(run: Any, tmp_path: Path, command: str) -> None:
    data = [] if command == "profile" else ["--data", "tiny"]
    code, out, err = run(command, "--model", "tiny", *data, "--samples", 3, "--out", tmp_path / "out")
    assert code == 0, err
    help_text = run(command, "--help")[1]
    explained = help_text[help_text.index("Output:") :]
    if command == "eval":
        (head,) = (line for line in out.splitlines() if line.startswith("| 3 samples"))
        names = {cell.strip() for cell in head.strip("|").split("|")[1:]} | {"seen", "believed", "resumed", "files"}
    else:
        names = {line.split("  ")[0] for line in out.splitlines() if line and not line.startswith(" ")}
        assert len(names) > 5
    for name in names:
        assert name in explained, name


def test_numbers_are_not_taken_for_boxes() -> None:
    assert _item("auroc_by_layer", [0.25, 0.5, 0.75, 1.0]) == "0.250, 0.500, 0.750, 1.000"
    assert _item("boxes", [0.0, 2.5, 10.0, 20.0]) == "(0, 2.5) to (10, 20)"
    assert _item("word", {"text": "a", "box": [0.0, 1.0, 2.0, 3.0]}) == "text a, box (0, 1) to (2, 3)"


def test_a_second_run_overwrites_nothing(run: Any, picture: Path, tmp_path: Path) -> None:
    arguments = (picture, "what is it?", "--model", "tiny", "--out", tmp_path / "out", "--json")
    first, second = (json.loads(run("attend", *arguments)[1]) for _ in range(2))
    kept = Path(first["overlay"]).read_bytes()
    assert Path(first["overlay"]).name == "card-overlay.png"
    assert Path(second["overlay"]).name == "card-2-overlay.png"
    assert Path(second["highlighted"]).name == "card-2-highlighted.png"
    third = json.loads(run("attend", *arguments, "--force", "--legend", "--boxes")[1])
    assert third["overlay"] == first["overlay"]
    assert Path(first["overlay"]).read_bytes() != kept


def test_options_reach_the_model(run: Any, picture: Path, tmp_path: Path) -> None:
    arguments = (picture, "what is it?", "--model", "tiny", "--out", tmp_path, "--json")
    raw = json.loads(run("ask", *arguments, "--prompt", "raw", "--max-new-tokens", 2)[1])
    assert raw["prompt"] == "what is it?"
    own = json.loads(
        run("ask", *arguments, "--prompt", "In {one} word: {question}", "--max-new-tokens", 2, "--words")[1]
    )
    assert own["prompt"].startswith("In {one} word: what is it?")
    assert [word["word"] for word in own["words"]] == own["answer"].split()
    assert 0 <= own["certainty"] <= 1
    for option, value in (("--sigma", -1), ("--alpha", 2), ("--lam", 0), ("--prompt", "nothing")):
        code, out, err = run("ask", *arguments, option, value)
        assert (code, out) == (1, "")
        assert f"{option.removeprefix('--')}=" in err


def test_a_picture_from_an_address_and_from_stdin(run: Any, picture: Path, tmp_path: Path) -> None:
    arguments = ("what is it?", "--model", "tiny", "--out", tmp_path, "--json")
    right = json.loads(run("attend", picture, *arguments)[1])["top_patches"]
    code, out, err = run("attend", picture.as_uri(), *arguments)
    assert code == 0, err
    assert json.loads(out)["top_patches"] == right
    code, out, err = run("attend", "http://127.0.0.1:9/a.png", *arguments)
    assert code == 1
    assert "fetch=True" in err
    command = [sys.executable, "-P", "-m", "vea_sdk", "attend", "-", *map(str, arguments)]
    done = subprocess.run(command, cwd="/", input=picture.read_bytes(), capture_output=True)
    assert json.loads(done.stdout)["top_patches"] == right


@pytest.mark.parametrize("command", ["ask", "attend"])
def test_a_folder_that_cannot_be_written_is_told_before_a_model_is_loaded(
    run: Any, picture: Path, tmp_path: Path, command: str
) -> None:
    (tmp_path / "taken").write_text("a file")
    code, _, err = run(command, picture, "what?", "--model", "./absent", "--out", tmp_path / "taken")
    assert code == 2
    assert "--out" in err
    assert "absent" not in err


def test_warnings_are_one_line(checkpoint: Path, picture: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-P", "-m", "vea_sdk", "attend", picture, "what?", "--model", checkpoint]
    done = subprocess.run([*map(str, command), "--out", str(tmp_path)], cwd="/", capture_output=True, text=True)
    assert done.returncode == 0
    (line,) = [line for line in done.stderr.splitlines() if "profile" in line]
    assert line.startswith("warning: ")


def test_a_terminal_that_lacks_a_letter(picture: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-P",
        "-m",
        "vea_sdk",
        "ask",
        picture,
        "Größe, 東京?",
        "--model",
        "tiny",
        "--out",
        tmp_path,
    ]
    for encoding in ("ascii", "cp1252"):
        environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
        done = subprocess.run(list(map(str, command)), cwd="/", capture_output=True, env=environment)
        assert done.returncode == 0, done.stderr
        assert b"\\u6771" in done.stdout


HOSTILE = ["\x1b[2J\x1b[31m", "\x1b]0;title\x07", "\x9b31m", "a\rb\x08", "\u202ex\u2028", "one\nanswer  forged\n"]


def acted_on(text: str) -> set[str]:
    """What a terminal would act on, line ends aside."""
    return {one for one in text if one != "\n" and (unicodedata.category(one) in ("Cc", "Zl") or one == "\u202e")}


@pytest.mark.parametrize("text", HOSTILE)
def test_questions_and_paths_are_shown_and_not_executed(run: Any, picture: Path, tmp_path: Path, text: str) -> None:
    named = picture.rename(tmp_path / f"{text}.png")
    code, out, err = run("ask", named, text, "--model", "tiny", "--out", tmp_path / text, "--max-new-tokens", 2)
    assert code == 0, err
    assert not acted_on(out + err)
    assert len([line for line in out.splitlines() if line.startswith("answer")]) == 1
    fields = [line.split()[0] for line in out.splitlines() if not line.startswith(" ")]
    assert fields[:4] == ["question", "prompt", "baseline", "answer"]
    code, out, err = run("ask", named, "q", "--model", tmp_path / f"absent{text}", "--out", tmp_path / text)
    assert code == 1
    assert "absent" in err
    assert not acted_on(out + err)


@pytest.mark.parametrize("text", HOSTILE)
def test_answers_words_and_warnings_are_shown_and_not_executed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    from vea_sdk.cli import app

    report({"answer": text, "words": [{"word": text, "box": None}], "files": [text]}, as_json=False)
    monkeypatch.setattr(app, "app", lambda: warnings.warn(text, stacklevel=1))
    with warnings.catch_warnings():
        app.main()
    out, err = capsys.readouterr()
    assert not acted_on(out + err)
    assert err.startswith("warning: ")
    assert [line.split()[0] for line in out.splitlines() if not line.startswith(" ")] == ["answer", "words", "files"]
    report({"answer": text}, as_json=True)
    assert json.loads(capsys.readouterr().out) == {"answer": text}


def test_boxes_are_printed_as_boxes(run: Any, picture: Path, tmp_path: Path) -> None:
    code, out, _ = run("attend", picture, "what is it?", "--model", "tiny", "--top", 3, "--out", tmp_path)
    assert code == 0
    lines = out.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("top_patches"))
    for line in lines[first : first + 3]:
        assert re.search(r"\([\d.]+, [\d.]+\) to \([\d.]+, [\d.]+\)$", line)
