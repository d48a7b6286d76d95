"""``vea profile``: files, JSON, installing, resuming after a kill, wrong usage."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import vea_sdk as vea
from vea_sdk import profiles, tiny


@pytest.fixture
def run(run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """``run`` in an empty folder, without profiles of the user's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return run


def test_profile_install_and_use(run: Any, checkpoint: Path, tmp_path: Path) -> None:
    command = (
        "profile",
        "--model",
        checkpoint,
        "--samples",
        7,
        "--fraction",
        0.5,
        "--device",
        "cpu",
        "--out",
        "made",
    )
    code, out, err = run(*command, "--install", "--json")
    assert code == 0, err
    fields = json.loads(out)
    made = vea.Profile.load(fields["files"]["profile"])
    assert fields["layers"] == list(made.layers)
    assert fields["model"] == str(checkpoint)
    vlm = vea.load(checkpoint, layers="all")
    expected = vea.profile(vlm, vea.probes(7), fraction=0.5, source="7 drawn pictures, seed 0")
    assert made == expected
    assert fields["auroc"] == pytest.approx(np.mean([made.auroc[layer] for layer in made.layers]))
    assert fields["auroc_all_layers"] == pytest.approx(np.mean(made.auroc))
    assert [row["n_samples"] for row in fields["stability"]] == [7]
    assert fields["transfer"]["n_samples"] == [1] * 7
    assert {border: len(rows) for border, rows in fields["sinks"].items()} == {"valid": 4, "replicate": 4}
    assert len(Path("made/samples.jsonl").read_text().splitlines()) == 8
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert vea.load(checkpoint).layers == made.layers
        Image.new("RGB", (90, 60), "teal").save("card.png")
        code, out, err = run("attend", "card.png", "what?", "--model", checkpoint, "--device", "cpu", "--json")
    assert json.loads(out)["layers"] == list(made.layers)
    replace(made, layers=(0,)).save("shallow.json")
    code, out, err = run("attend", "card.png", "what?", "--model", checkpoint, "--layers", "shallow.json", "--json")
    assert json.loads(out)["layers"] == [0]
    code, out, _ = run(*command)  # once more, from the journal, for people
    assert code == 0
    assert "chosen_share" in out


def test_other_layers_keep_the_threshold_of_certainty(run: Any, checkpoint: Path) -> None:
    """It is of the model's answers, whichever layers look."""
    name = str(checkpoint)
    profiles.install(vea.Profile(name, (0,), "a test", min_certainty=0.6))
    command = ("profile", "--model", checkpoint, "--samples", 2, "--device", "cpu", "--json")
    code, out, err = run(*command, "--install")
    assert code == 0, err
    fields = json.loads(out)
    assert vea.Profile.load(fields["files"]["installed"]).min_certainty == 0.6
    assert vea.Profile.load(fields["files"]["installed"]).n_samples == 2
    assert "min_certainty" not in fields["profile"]


def test_figures(run: Any, checkpoint: Path) -> None:
    pytest.importorskip("matplotlib")
    kinds = ("--kinds", "table,shapes", "--samples", 4)
    code, out, err = run("profile", "--model", checkpoint, "--device", "cpu", *kinds, "--json")
    assert code == 0, err
    files = json.loads(out)["files"]
    assert Path(files["profile"]).parent.parent == Path("vea-output")
    for name in ("layers", "stability", "transfer", "sinks"):
        with Image.open(files[name]) as picture:
            assert np.asarray(picture.convert("L")).std() > 5


def test_without_matplotlib_it_goes_on(run: Any, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vea_sdk.cli.profile.can_draw", lambda: False)
    code, out, err = run("profile", "--model", checkpoint, "--samples", 2, "--device", "cpu", "--json")
    assert code == 0
    assert "pip install 'vea-sdk[viz]'" in err
    assert set(json.loads(out)["files"]) == {"journal", "profile", "study"}


def test_data_of_ones_own(run: Any, checkpoint: Path) -> None:
    from vea_sdk.evaluation.datasets import write_folder

    write_folder("data", vea.probes(3, kinds=["receipt"]))
    command = ("profile", "--model", checkpoint, "--device", "cpu", "--data", "data", "--json")
    code, out, err = run(*command)
    assert code == 0, err
    found = json.loads(out)
    assert found["n_samples"] == 3
    assert found["profile"]["source"].endswith("data")
    assert found["transfer"]["kinds"] == ["receipt"]


@pytest.mark.slow
def test_the_embedded_model_has_one_choice_for_three_seeds(run: Any) -> None:
    """And the figures are those that the docs show."""
    docs = (Path(__file__).parents[1] / "docs" / "profiling.md").read_text(encoding="utf-8")
    for seed, row in enumerate(re.findall(r"^\| [012] \| .*\| 2 \|$", docs, re.MULTILINE)):
        started = time.perf_counter()
        code, out, err = run("profile", "--model", "tiny", "--seed", seed, "--out", f"seed-{seed}", "--json")
        assert code == 0, err
        fields = json.loads(out)
        assert time.perf_counter() - started < 60
        assert fields["layers"] == [2]
        assert fields["n_samples"] == 100
        made = fields["profile"]
        figures = [*made["auroc"][:3], made["auroc_low"][2], made["auroc_high"][2], made["auroc"][3]]
        shown = [float(figure) for figure in re.findall(r"\d\.\d{3}", row)]
        np.testing.assert_allclose(shown, [*figures, fields["auroc_all_layers"]], atol=6e-4)
        assert fields["auroc"] > fields["auroc_all_layers"] + 0.2
        assert all(row["same"] == 1 for row in fields["stability"])
        if seed == 0:  # the pictures of the profile that is shipped
            shipped = vea.Profile.load(tiny.checkpoint() / "vea_profile.json")
            np.testing.assert_allclose(made["auroc"], shipped.auroc, atol=1e-4)
    assert seed == 2


@pytest.mark.slow
def test_killed_and_started_again_it_gives_the_same(tmp_path: Path) -> None:
    def start(out: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-P", "-m", "vea_sdk", "profile", "--model", "tiny", "--samples", "40", "--out", out]
        return subprocess.Popen(command, cwd=tmp_path, env=os.environ | {"OMP_NUM_THREADS": "1"})

    journal = tmp_path / "killed" / "samples.jsonl"
    first = start("killed")
    while not (journal.exists() and journal.read_bytes().count(b"\n") > 9) and first.poll() is None:
        time.sleep(0.01)
    first.send_signal(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    assert journal.read_bytes().count(b"\n") < 41
    assert start("killed").wait() == start("whole").wait() == 0
    for name in ("profile.json", "study.json", "samples.jsonl"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "--model"),
        (["--model", "tiny", "--fraction", "0"], 2, "--fraction"),
        (["--model", "tiny", "--rule", "most"], 2, "most"),
        (["--model", "tiny", "--samples", "0"], 2, "--samples"),
        (["--model", "tiny", "--kinds", "table"], 2, "none are drawn"),
        (["--model", "tiny", "--seed", "11"], 1, "set aside"),
        (["--model", "CHECKPOINT", "--kinds", "passport"], 1, "'passport' is unknown"),
        (["--model", "CHECKPOINT", "--font", "absent.ttf"], 1, "cannot be read"),
        (["--model", "CHECKPOINT", "--data", "absent"], 1, "absent is no data set"),
        (["--model", "CHECKPOINT", "--out", "CHECKPOINT/config.json"], 2, "cannot write"),
        (["--model", "CHECKPOINT", "--layers", "absent.json"], 1, "absent.json"),
        (["--model", "./absent"], 1, "no checkpoint folder"),
    ],
)
def test_errors(run: Any, checkpoint: Path, arguments: list[str], code: int, message: str) -> None:
    given = [argument.replace("CHECKPOINT", str(checkpoint)) for argument in arguments]
    found, out, err = run("profile", *given, "--json")
    assert found == code, err
    assert message in err
    assert out == ""
