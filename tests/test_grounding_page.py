"""docs/grounding.md against the committed results, and these against themselves and a fresh run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import vea_sdk as vea
from vea_sdk import tiny
from vea_sdk.evaluation import evaluate

SCRIPTS = Path(__file__).parents[1] / "benchmarks"
pytestmark = pytest.mark.skipif(not SCRIPTS.is_dir(), reason="needs a source checkout")


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import grounding_page

    return grounding_page


@pytest.fixture
def results(page: Any) -> dict[str, Any]:
    return dict(page.load(page.RESULTS))


def test_the_page_is_what_the_results_give(page: Any, results: dict[str, Any]) -> None:
    text = page.DOCUMENT.read_text(encoding="utf-8")
    assert text == page.render(results)
    assert "{{" not in text
    assert set(page.TABLES) == set(re.findall(r"\{\{(\w+)\}\}", page.TEXT.read_text(encoding="utf-8")))
    for path in re.findall(r"\]\((figures/[^)]+)\)", text):
        with Image.open(page.DOCUMENT.parent / path) as figure:
            assert np.asarray(figure.convert("L")).std() > 5


def test_a_figure_of_the_page_comes_from_the_results(page: Any, results: dict[str, Any]) -> None:
    """Another result gives another table: no number stands in the code."""
    before = page.methods(results)
    clean = results["conditions"]["clean"]["methods"]["base"]["metrics"]["em"]
    assert f"| clean | {100 * clean['value']:.1f} [" in before
    clean["value"] = 0.123
    assert "| clean | 12.3 [" in page.methods(results)


def test_results_agree_with_themselves(results: dict[str, Any]) -> None:
    """What changed explains the difference in exact match, and every split counts every sample."""
    n = results["measured"]["conditions"]["samples"]
    for found in results["conditions"].values():
        methods = found["methods"]
        right = {name: n * one["metrics"]["em"]["value"] for name, one in methods.items()}
        for name, one in methods.items():
            assert sum(one["split"].values()) == n
            if name != "base":
                changed = one["comparison"]["gained"] - one["comparison"]["lost"]
                assert right[name] == pytest.approx(right["base"] + changed, abs=0.01)
        assert sum(row[2] + row[3] for row in found["histogram"]) == n
        assert sum(found["wrong"].values()) == n - round(right["base"])
        outcomes = found["analysis"]["outcomes"]
        assert outcomes["auroc_below_half"]["n"] + outcomes["auroc_from_half"]["n"] == outcomes["all"]["n"] == n
    for condition, variants in results["why"].items():
        for name in ("base", "inst", "vea"):
            listed = results["conditions"][condition]["methods"][name]["metrics"]["em"]["value"]
            assert variants[name]["em"] == listed


def test_analysis_files_are_those_of_the_conditions(page: Any, results: dict[str, Any]) -> None:
    """docs/figures/analyze is what `vea analyze` wrote for one of them."""
    folder = page.DOCUMENT.parent / page.FIGURES / "analyze"
    written = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    expected = results["conditions"]["noise:0.6"]["analysis"]
    assert written["outcomes"] == expected["outcomes"]
    assert written["auroc_by_layer"] == pytest.approx(expected["auroc_by_layer"], rel=1e-4)


@pytest.mark.slow
def test_a_fresh_run_gives_the_committed_figures(results: dict[str, Any]) -> None:
    """To one answer in a hundred: another processor may round another way."""
    n = results["measured"]["conditions"]["samples"]
    found = evaluate(vea.load(tiny.checkpoint(), device="cpu"), tiny.held_out(n), ["base"], max_new_tokens=24)
    expected = results["conditions"]["clean"]["methods"]["base"]["metrics"]
    for metric in ("em", "auroc"):
        assert found.methods["base"].metrics[metric].value == pytest.approx(expected[metric]["value"], abs=0.01)
