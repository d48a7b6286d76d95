"""docs/closer.md is run as it stands, and what benchmarks/closer.py counts, on four pictures a situation."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "closer.md").read_text(encoding="utf-8")


def test_every_block_runs(capsys: pytest.CaptureFixture[str]) -> None:
    space: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(block, space)
    answer, page = space["answer"], space["page"]
    assert answer.text in page.answers  # type: ignore[attr-defined]
    assert answer.baseline not in page.answers  # type: ignore[attr-defined]
    assert answer.reason in capsys.readouterr().out  # type: ignore[attr-defined]


@pytest.mark.skipif(not (ROOT / "benchmarks").is_dir(), reason="needs a source checkout")
def test_ways_on_four_pictures_a_situation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import closer

    try:
        scenes = [closer.of_scene("among others", closer.SCENES["among others"](seed)) for seed in range(2000, 2004)]
        pictures = {
            name: [closer.of_picture(name, closer.PICTURES[name](seed)) for seed in range(2000, 2004)]
            for name in closer.JUDGED
        }
        glare = [closer.of_picture("glare 0.15", closer.PICTURES["glare 0.15"](seed)) for seed in range(2000, 2004)]
        rows = [*closer.closer_rows({"among others": scenes}), *closer.rendering_rows(pictures | {"glare 0.15": glare})]
        rows += closer.certainty_rows(pictures, 4)
    finally:
        sys.modules.pop("closer")
    right = {way: sum(one[way] for one in scenes) for way in ("base", "closer", "random")}
    assert right["closer"] >= max(3, right["base"] + 2, right["random"] + 2)
    assert sum(one["views"] for one in glare) > sum(one["base"] for one in glare)
    told = {(row.what.split(" against")[0], row.shape["situation"]): row.value for row in rows}
    assert told["closer", "among others"] == 25 * right["closer"]
    assert told["AUROC of certainty", "all five"] >= 0.8
