"""``vea eval``: one JSON object, the same table after a kill, wrong usage refused before a model is loaded."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vea_sdk as vea
from vea_sdk import profiles, tiny
from vea_sdk.evaluation.datasets import write_folder

COUNT = 12
COMMAND = ("eval", "--model", "tiny", "--samples", COUNT, "--batch", 2, "--degrade", "noise:0.5", "--json")


def test_tiny(run: Any, tmp_path: Path) -> None:
    code, out, err = run(*COMMAND, "--methods", "all", "--out", tmp_path)
    assert code == 0, err
    fields = json.loads(out)
    assert fields["samples"] == COUNT
    assert list(fields["methods"]) == ["base", "inst", "vea", "no-denoise", "no-smooth", "no-profiling", "no-prompt"]
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()[1:]]
    for name, method in fields["methods"].items():
        exact = [row["methods"][name]["em"] for row in rows]
        assert method["metrics"]["em"]["value"] == pytest.approx(np.mean(exact))
        for metric in ("em", "f1"):
            assert 0 <= method["metrics"][metric]["low"] <= method["metrics"][metric]["value"]
            assert method["metrics"][metric]["value"] <= method["metrics"][metric]["high"] <= 1
    assert fields["methods"]["base"]["metrics"]["em"]["value"] >= 0.5
    auroc = {name: method["metrics"]["auroc"]["value"] for name, method in fields["methods"].items()}
    assert auroc["vea"] > auroc["no-profiling"]
    assert "noise:0.5" in fields["run"]["data"]
    assert json.loads((tmp_path / "summary.json").read_text())["methods"] == fields["methods"]
    assert "| no-prompt |" in (tmp_path / "summary.md").read_text()


def test_a_folder_and_lines_without_json(run: Any, tmp_path: Path) -> None:
    write_folder(tmp_path / "data", tiny.held_out(3, first=40))
    code, out, err = run("eval", "--model", "tiny", "--data", tmp_path / "data", "--shuffle", "--out", tmp_path / "out")
    assert code == 0, err
    assert "| 3 samples | EM |" in out
    assert "results.jsonl" in out


@pytest.mark.parametrize("text", ["\x1b[2J\x1b[31m", "\x1b]0;title\x07", "one\nresumed  9"])
def test_names_of_folders_are_shown_and_not_executed(run: Any, tmp_path: Path, text: str) -> None:
    write_folder(tmp_path / text, tiny.held_out(2, first=40))
    command = ("eval", "--model", "tiny", "--data", tmp_path / text, "--methods", "base", "--max-new-tokens", 2)
    code, out, err = run(*command, "--out", tmp_path / text / "out")
    assert code == 0, err
    assert "\x1b" not in out + err
    assert text.encode("unicode_escape").decode()[-5:] in out
    assert len([line for line in out.splitlines() if line.startswith("resumed")]) == 1


def test_probes_and_another_model_that_looks(run: Any, tmp_path: Path) -> None:
    command = ("eval", "--model", "tiny", "--data", "probes", "--samples", 3, "--methods", "vea", "--json")
    code, out, err = run(*command, "--attend-with", "tiny", "--layers", "1,3", "--out", tmp_path)
    assert code == 0, err
    fields = json.loads(out)
    assert fields["run"]["layers"] == fields["run"]["attend_with"]["layers"] == [1, 3]
    assert fields["run"]["data"] == "probes of seed 0"
    assert fields["methods"]["vea"]["metrics"]["auroc"]["n"] == 3


@pytest.mark.slow
def test_killed_and_restarted_it_gives_the_same(run: Any, tmp_path: Path) -> None:
    """Killed without warning at some moment after its first row, and half a line of another row left behind."""
    lines = random.randrange(1, COUNT - 2)
    whole = json.loads(run(*COMMAND, "--out", tmp_path / "whole")[1])
    path = tmp_path / "killed" / "results.jsonl"
    arguments = [str(argument) for argument in (*COMMAND, "--out", tmp_path / "killed")]
    process = subprocess.Popen([sys.executable, "-P", "-m", "vea_sdk", *arguments], stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not (path.exists() and path.read_bytes().count(b"\n") > lines):
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.005)
    finally:
        process.kill()
        process.wait()
    with path.open("ab") as file:
        file.write(b'{"id": "99", "kind": "rec')
    kept = path.read_bytes().count(b"\n") - 1
    assert lines <= kept < COUNT
    code, out, err = run(*COMMAND, "--out", tmp_path / "killed")
    assert code == 0, err
    again = json.loads(out)
    assert (again["methods"], again["samples"], again["resumed"]) == (whole["methods"], COUNT, kept)
    rows = [sorted((tmp_path / name / "results.jsonl").read_text().splitlines()) for name in ("whole", "killed")]
    assert rows[0] == rows[1]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--model", "some/model"], 2, "probes"),
        (["--model", "tiny", "--out", "FOLDER/samples.jsonl"], 2, "cannot write to"),
        (["--model", "tiny", "--methods", "base,blur"], 2, "blur"),
        (["--model", "tiny", "--sweep", "sigma=wide"], 2, "sigma=wide"),
        (["--model", "tiny", "--sweep", "sigma="], 2, "must be such as sigma="),
        (["--model", "tiny", "--sweep", "alpha=0.5,2"], 2, "alpha=2"),
        (["--model", "tiny", "--sweep", "size=3"], 2, "size=3"),
        (["--model", "tiny", "--sweep", "sigma=1", "--sweep", "sigma=2"], 2, "each once"),
        (["--model", "tiny", "--degrade", "blur:3"], 2, "blur:3"),
        (["--model", "tiny", "--samples", "0"], 2, "--samples"),
        (["--model", "tiny", "--rule", "most"], 2, "most"),
        (["--model", "tiny", "--data", "FOLDER", "--columns", "image"], 2, "--columns"),
        (["--model", "tiny", "--data", "FOLDER/absent"], 1, "no data set"),
        (["--model", "tiny", "--data", "FOLDER"], 1, "line 2 is no JSON"),
        (["--model", "./absent", "--data", "tiny"], 1, "no checkpoint folder"),
    ],
)
def test_errors(run: Any, tmp_path: Path, arguments: list[str], code: int, message: str) -> None:
    (tmp_path / "samples.jsonl").write_text('{"image": "x.png", "question": "?"}\n{broken\n')
    given = [one.replace("FOLDER", str(tmp_path)) for one in arguments]
    found, out, err = run("eval", "--out", tmp_path / "out", *given, "--json")
    assert found == code, err
    assert message in err
    assert out == ""


def test_relative_boxes_and_pictures_outside(run: Any, tmp_path: Path) -> None:
    """The same figures as from the same boxes in pixels."""
    write_folder(tmp_path / "data", tiny.held_out(2))
    rows = [json.loads(line) for line in (tmp_path / "data" / "samples.jsonl").read_text().splitlines()]
    for row, sample in zip(rows, tiny.held_out(2), strict=True):
        across, down = sample.image.size
        row["boxes"] = [[x0 / across, y0 / down, x1 / across, y1 / down] for x0, y0, x1, y1 in row["boxes"]]
        row["image"] = f"../data/{row['image']}"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "samples.jsonl").write_text("\n".join(map(json.dumps, rows)))
    command = ("eval", "--model", "tiny", "--methods", "base", "--json", "--data")
    _, out, _ = run(*command, tmp_path / "data", "--out", tmp_path / "a")
    relative = (*command, tmp_path / "other", "--boxes", "relative")
    found, again, err = run(*relative, "--outside", "--out", tmp_path / "b")
    assert found == 0, err
    assert json.loads(again)["methods"] == json.loads(out)["methods"]
    for options, message in (((), "outside=True"), (("--outside", "--boxes", "pixels"), "boxes count in pixels")):
        code, _, err = run(*relative, *options, "--out", tmp_path / "c")
        assert (code, message in err) == (1, True)


def test_a_sweep(run: Any, tmp_path: Path) -> None:
    command = ("eval", "--model", "tiny", "--samples", 2, "--methods", "base", "--sweep", "sigma=0.02,0.5")
    code, out, err = run(*command, "--sweep", "alpha=0.3", "--out", tmp_path, "--json")
    assert code == 0, err
    assert list(json.loads(out)["methods"]) == ["base", "vea[sigma=0.02,alpha=0.3]", "vea[sigma=0.5,alpha=0.3]"]
    assert "| vea[sigma=0.02,alpha=0.3] |" in (tmp_path / "summary.md").read_text()


def test_results_of_other_options_are_refused(run: Any, tmp_path: Path) -> None:
    command = ("eval", "--model", "tiny", "--samples", 1, "--methods", "base", "--out", tmp_path, "--json")
    assert run(*command)[0] == 0
    code, out, err = run(*command, "--sigma", 0.1)
    assert (code, out) == (1, "")
    assert "sigma was 0.5, now 0.1" in err


NOISY = ("eval", "--model", "tiny", "--samples", 40, "--degrade", "noise:0.6", "--methods", "base", "--json")


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the user's own profiles, empty."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path / "data" / "vea_sdk" / "profiles"


def test_calibrate_keeps_the_smallest_threshold_that_will_do(run: Any, own: Path, tmp_path: Path) -> None:
    """Found again by trying every answer's certainty; the embedded model's layers stay."""
    code, out, err = run(*NOISY, "--calibrate", "--precision", 0.85, "--out", tmp_path / "out")
    assert code == 0, err
    fields = json.loads(out)
    lines = (tmp_path / "out" / "results.jsonl").read_text().splitlines()[1:]
    answers = [json.loads(line)["methods"]["base"] for line in lines]
    will_do = []
    for threshold in sorted(one["certainty"] for one in answers):
        right = [one["em"] for one in answers if one["certainty"] >= threshold]
        if len(right) >= 10 and np.mean(right) >= 0.85:
            will_do.append((threshold, len(right) / 40, np.mean(right)))
    found = fields["calibration"]
    assert [found[name] for name in ("threshold", "kept", "right")] == pytest.approx(will_do[0])
    assert (found["precision"], found["n"]) == (0.85, 40)
    assert found["ece"] == fields["methods"]["base"]["certainty"]["ece"]
    assert found["profile"] == str(own / "vea-tiny.json")
    kept = vea.Profile.load(own / "vea-tiny.json")
    beside = vea.Profile.load(tiny.checkpoint() / profiles.PROFILE_FILE)
    assert (kept.min_certainty, kept.layers, kept.auroc) == (will_do[0][0], beside.layers, beside.auroc)
    assert profiles.find(vea.load(tiny.checkpoint()).model) == kept
    people = [argument for argument in NOISY if argument != "--json"]
    code, out, err = run(*people, "--calibrate", "--precision", 0.85, "--out", tmp_path / "out")
    assert code == 0, err
    assert f"threshold {found['threshold']:.3f}, kept {found['kept']:.3f}, right {found['right']:.3f}" in out
    assert "| certainty | AUROC | ECE | risk at 100% | risk at 80% | risk at 50% | n |" in out


@pytest.mark.slow
def test_the_figures_of_the_docs(run: Any, own: Path, tmp_path: Path) -> None:
    """By the command beside them; another processor rounds differently, and an answer or two may change."""
    page = (Path(__file__).parents[1] / "docs" / "evaluation.md").read_text(encoding="utf-8")
    command, table = re.findall(r"```(?:sh)?\n(vea eval [^\n]*--calibrate|\| certainty \|.*?)\n```", page, re.DOTALL)
    code, out, err = run(*command.split()[1:], "--out", tmp_path, "--json")
    assert code == 0, err
    fields = json.loads(out)
    for row in table.splitlines()[2:]:
        name, *shown = (cell.strip() for cell in row.strip("|").split("|"))
        found = fields["methods"][name]["certainty"]
        figures = [100 * figure for figure in (found["auroc"], found["ece"], *found["risk_at"].values())]
        assert [*figures, found["n"]] == pytest.approx([float(one) for one in shown], abs=2)
    (threshold, kept, right) = re.findall(r"threshold ([\d.]+), kept ([\d.]+), right ([\d.]+)", page)[0]
    found = fields["calibration"]
    assert found["threshold"] == pytest.approx(float(threshold), abs=0.05)
    assert [found["kept"], found["right"]] == pytest.approx([float(kept), float(right)], abs=0.05)


def test_without_calibrate_no_profile_is_touched(run: Any, own: Path, tmp_path: Path) -> None:
    code, out, err = run(*NOISY[:3], "--samples", 2, *NOISY[5:], "--out", tmp_path / "out")
    assert code == 0, err
    assert "calibration" not in json.loads(out)
    assert not own.exists()


def without_certainty(path: Path) -> None:
    """As an earlier version wrote results."""
    run, *rows = (json.loads(line) for line in path.read_text().splitlines())
    for row in rows:
        del row["methods"]["base"]["certainty"]
    path.write_text("".join(json.dumps(line) + "\n" for line in (run, *rows)))


def test_no_threshold_will_do(run: Any, own: Path, checkpoint: Path, tmp_path: Path) -> None:
    """A model of random weights is never right. What was found is printed, nothing is kept, and it exits with 1."""
    profiles.install(vea.Profile(str(checkpoint), (1,), "a test"))
    (file,) = own.iterdir()
    before = file.read_bytes()
    command = ("eval", "--model", checkpoint, "--data", "probes", "--methods", "base", "--max-new-tokens", 3, "--json")
    command = (*command, "--calibrate", "--out", tmp_path / "out", "--samples")
    answered = ["none that leaves 10 answers has 90.0% of them right", "of 12, 0.0% of them right", "--precision"]
    too_few = ["it must leave 10 answers, and only 4 have a certainty", "--samples"]
    for samples, said in ((4, too_few), (12, answered)):
        code, out, err = run(*command, samples)
        assert code == 1
        found = json.loads(out)["calibration"]
        assert (found["threshold"], found["kept"], found["n"]) == (None, None, samples)
        assert "profile" not in found
        assert all(text in err for text in said), err
    without_certainty(tmp_path / "out" / "results.jsonl")
    code, out, err = run(*command, 12)
    assert (code, json.loads(out)["calibration"]["ece"]) == (1, None)
    assert "no answer of base has a certainty" in err
    assert "choose another --out" in err
    assert file.read_bytes() == before


def test_calibrate_needs_a_profile_and_says_so_first(run: Any, own: Path, checkpoint: Path, tmp_path: Path) -> None:
    command = ("eval", "--model", checkpoint, "--data", "probes", "--samples", 10, "--calibrate", "--layers", "1")
    code, out, err = run(*command, "--out", tmp_path / "out", "--json")
    assert (code, out) == (1, "")
    assert f"no profile of {checkpoint}" in err
    assert f"vea profile --model {checkpoint} --install" in err
    assert not (tmp_path / "out" / "results.jsonl").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--methods", "inst,vea"), "base"),
        (("--precision", 0), "0.0 is not above 0"),
        (("--precision", 90), "90.0 is not above 0"),
    ],
)
def test_wrong_usage_of_calibrate(
    run: Any, own: Path, tmp_path: Path, options: tuple[object, ...], message: str
) -> None:
    code, out, err = run("eval", "--model", "tiny", "--calibrate", *options, "--out", tmp_path / "out")
    assert (code, out) == (2, "")
    assert message in err


def test_a_folder_of_profiles_that_cannot_be_written_is_told_first(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "file"))
    code, out, err = run("eval", "--model", "tiny", "--calibrate", "--out", tmp_path / "out")
    assert (code, out) == (2, "")
    assert "cannot write to" in err
