"""docs/looking.md is run as it stands, and what benchmarks/looks.py counts, on a share of its pictures."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest

import vea_sdk as vea
from vea_sdk import tiny

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "looking.md").read_text(encoding="utf-8")


def test_every_block_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    space: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(block, space)
    assert {path.name for path in tmp_path.iterdir()} == {"looked-here.png", "with-boxes.png", "word.png", "look.npz"}
    ev, same, answer, again = (space[name] for name in ("ev", "same", "answer", "again"))
    assert isinstance(ev, vea.Evidence)
    assert isinstance(same, vea.Evidence)
    assert ev.scores.tobytes() == same.scores.tobytes()
    assert (answer.text, answer.certainty) == (again.text, again.certainty)  # type: ignore[attr-defined]
    words = space["second"].words  # type: ignore[attr-defined]
    assert np.abs(words[0].evidence[0].scores).max() > 0
    printed = capsys.readouterr().out
    assert "19.09.79" in printed


@pytest.mark.skipif(not (ROOT / "benchmarks").is_dir(), reason="needs a source checkout")
def test_looks_of_twenty_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """The very counts of the benchmark; its limits are 52, 50 and 45 of 60."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from looks import looked

    vlm = vea.load(tiny.checkpoint(), device="cpu")
    seen = list(looked(vlm, 2000, 20))
    assert sum(one.overlay for one in seen) >= 17
    assert sum(one.look for one in seen) >= 16
    assert sum(one.point for one in seen) >= 15
    sys.modules.pop("looks")
