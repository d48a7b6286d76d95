"""The conformance suite as one test, the table it leaves behind, and the boundary that keeps families in one place."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import transformers
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from tests.conformance.document import DOCUMENT, document
from vea_sdk.adapters import support
from vea_sdk.cli import main

ROOT = Path(__file__).parents[1]
MINUTES = 25  # for the whole suite on two cores


def states(rows: list[dict[str, Any]]) -> dict[str, tuple[str, str]]:
    return {row["model_type"]: (row["capture"], row["geometry"]) for row in rows}


def run_suite(*arguments: str, minutes: int) -> list[dict[str, Any]]:
    """A process of its own: the stand-in for torchvision has to be there before Transformers is imported."""
    run = subprocess.run(
        [sys.executable, "-m", "tests.conformance", "--json", *arguments],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=60 * minutes,
    )
    assert run.returncode == 0, run.stderr[-4000:]
    rows: list[dict[str, Any]] = json.loads(run.stdout)["architectures"]
    return rows


def test_the_ways_to_look() -> None:
    """One architecture of each kind: merged and cross-attention, own code, indexer, embeddings, masks, tiles, keys that
    layers share, a cache that the decoder wraps."""
    kinds = [
        "t5gemma2",
        "idefics",
        "git",
        "blip",
        "dots3_note",
        "blip-2",
        "kosmos-2.5",
        "idefics3",
        "qwen3_5",
        "gemma4",
    ]
    rows = run_suite(*kinds, minutes=5)
    found = states(rows)
    assert {name: capture for name, (capture, _) in found.items()} == dict.fromkeys(kinds, "ok")
    videos = {row["model_type"]: row["video"] for row in rows}
    assert {name for name in kinds if videos[name] == "ok"} == {"dots3_note", "qwen3_5", "gemma4"}
    asked = {row["model_type"]: row["ask"] for row in rows}
    assert asked == dict.fromkeys(kinds, "ok") | {
        "idefics": "one turn",
        "git": "one picture, one turn",
        "blip": "one picture, one turn",
        "blip-2": "answer only",
        "kosmos-2.5": "answer only",
    }
    without_grid = {name for name, (_, geometry) in found.items() if geometry != "ok"}
    assert without_grid == {"blip-2", "kosmos-2.5"}


@pytest.mark.slow
def test_every_architecture() -> None:
    rows = run_suite("--jobs", "2", minutes=MINUTES)
    assert set(states(rows)) == set(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)
    assert sum(row["capture"] == "ok" and row["eager_error"] <= 1e-5 for row in rows) >= 88
    assert all(row["float64_error"] <= 2e-6 for row in rows if row["capture"] == "ok")
    assert sum(row["geometry"] == "ok" for row in rows) >= 70
    assert all(min(row["correlation_x"], row["correlation_y"]) > 0.97 for row in rows if row["geometry"] == "ok")
    if transformers.__version__ == support.table()["transformers"]:
        table = support.table()["architectures"]
        assert states(rows) == states(table)
        for check in ("video", "ask"):
            assert {row["model_type"]: row[check] for row in rows} == {row["model_type"]: row[check] for row in table}


def test_the_page_is_made_from_the_table() -> None:
    assert DOCUMENT.read_text() == document()


def test_doctor_prints_the_table(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def doctor(*options: str) -> str:
        monkeypatch.setattr(sys, "argv", ["vea", "doctor", "--families", *options])
        with pytest.raises(SystemExit) as stop:
            main()
        assert not stop.value.code
        return capsys.readouterr().out

    printed = doctor()
    assert DOCUMENT.read_text().endswith(printed)
    assert len(printed.splitlines()) == 2 + len(support.table()["architectures"])
    assert json.loads(doctor("--json")) == support.table()


def test_reasons_stand_in_the_notes(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        {"model_type": "a", "capture": "ok", "geometry": "none: resampled", "eager_error": 2e-7, "flags": ["sliding"]}
        | {"video": "ok", "ask": "ok"},
        {"model_type": "b", "capture": "left out: no picture: text", "geometry": "-", "video": "-", "ask": "-"},
    ]
    monkeypatch.setattr(support, "table", lambda: {"architectures": rows})
    first, second = (line.split(" | ") for line in support.markdown().splitlines()[2:])
    assert [cell.strip(" |") for cell in first] == [
        "a",
        "ok",
        "2e-07",
        "",
        "none",
        "",
        "",
        "ok",
        "ok",
        "sliding, resampled",
    ]
    assert [cell.strip(" |") for cell in second] == ["b", "left out", "", "", "-", "", "", "", "", "no picture: text"]


# Beginnings of model types that mean something else too; their whole name is looked for instead.
WORDS = {"diffusion", "dots", "fast", "got", "minimax", "perception", "pi", "pix", "pp", "step", "t", "unlimited"}
WORDS |= {"video", "vision"}


def test_no_family_outside_the_adapters() -> None:
    """What differs between architectures stands in adapters/ alone. ``tiny`` and ``benchmark`` hold a model of one
    family, which they make; they handle no model by its name."""
    names = set()
    for model_type in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        stem = re.match("[a-z]+", model_type)
        assert stem is not None
        names.add(model_type if stem.group() in WORDS else stem.group())
    words = "|".join(sorted(map(re.escape, names)))
    starts = "|".join(sorted(re.escape(name.capitalize()) for name in names))
    family = re.compile(rf"(?<![A-Za-z])(?i:{words})(?![a-z])|(?:{starts})(?=[A-Z0-9])")
    sources = [*(ROOT / "vea_sdk").rglob("*.py"), *(ROOT / "csrc").rglob("*.*")]
    elsewhere = [path for path in sources if not {"adapters", "tiny", "benchmark"} & set(path.parts)]
    assert len(elsewhere) > 40
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in elsewhere
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if family.search(line)
    ]
    assert not found, "\n".join(found)
