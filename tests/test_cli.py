"""The command ``vea``: one JSON object on stdout, everything else on stderr, exit codes 0, 1 and 2."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vea_sdk import tiny


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "card.png"
    Image.effect_mandelbrot((150, 100), (-2, -1, 1, 1), 20).save(path)
    return path


def test_demo(run: Any, tmp_path: Path) -> None:
    code, out, err = run("demo", "--json", "--out", tmp_path / "pictures")
    assert code == 0, err
    fields = json.loads(out)
    sample = tiny.demo_sample()
    assert (fields["question"], fields["expected"]) == (sample.question, sample.answers[0])
    assert fields["baseline"] != ""
    assert fields["answer"] != ""
    assert 0.8 < fields["auroc"] <= 1
    assert set(fields["timings"]) == {"load", "prepare", "baseline", "evidence", "answer"}
    for name in ("overlay", "highlighted"):
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
        (["attend", "PICTURE", "what?", "--model", "CHECKPOINT", "--layers", "1", "--top", "999"], 1, "k=999"),
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
