"""The README's code is run, and type-checked, as it stands there."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from families import FAMILIES
from PIL import Image
from torch import nn

import vea_sdk as vea
from vea_sdk.adapters import registry

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_adapter_of_the_readme(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_adapters", dict(vea.adapters.families()))
    (code,) = [block for block in blocks("python") if "@register" in block]
    exec(code, {})

    model = nn.Module()
    model.config = type("Config", (), {"model_type": "my_vlm", "image_token_id": 7})()
    adapter = vea.adapters.find(model)
    ids = torch.tensor([[1, *[7] * 576, 2]])
    (layout,) = adapter.layouts({"input_ids": ids}, [(480, 640)], processor=None)
    assert layout.grid_size == (24, 24)
    assert np.allclose(layout.token_boxes()[25], [640 / 24, 20, 2 * 640 / 24, 40])


def test_the_readme_shows_commands_and_pictures_that_exist() -> None:
    assert blocks("sh") == ["pip install . && vea demo\n", "pip install '.[test]' && pytest\n"]
    root = Path(__file__).parent.parent
    for link in re.findall(r"\]\(((?!http)[^)]+)\)", README):
        assert (root / link).is_file(), link


def own_model() -> str:
    """The block about a model of one's own."""
    (code,) = [block for block in blocks("python") if "vea.wrap(" in block and ".ask(" in block]
    return code


@pytest.fixture
def receipt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Image.Image:
    """In a folder of its own, receipt.jpg."""
    monkeypatch.chdir(tmp_path)
    shown = Image.fromarray(np.random.default_rng(0).integers(0, 256, (150, 200, 3), dtype=np.uint8))
    shown.save("receipt.jpg")
    return shown


@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("torchvision", "accelerate")),
    reason="the README says that this snippet needs pip install 'vea-sdk[hf]'",
)
def test_a_model_of_ones_own(receipt: Image.Image, capsys: pytest.CaptureFixture[str]) -> None:
    """On a small checkpoint of that very family, with its real processor, video part included."""
    family = FAMILIES["qwen2_5_vl"]()
    parts = family.processor
    sides = {"patch_size": 4, "merge_size": 2, "temporal_patch_size": 2}
    size = {"shortest_edge": 32**2, "longest_edge": 96**2}
    processor = hf.Qwen2_5_VLProcessor(
        hf.Qwen2VLImageProcessor(**sides, size=size),
        parts.tokenizer,
        hf.Qwen2VLVideoProcessor(**sides, size=size),
        chat_template=parts.chat_template,
    )
    family.model.save_pretrained("checkpoint")
    hf.GenerationConfig(min_new_tokens=5, eos_token_id=parts.tokenizer.eos_token_id).save_pretrained("checkpoint")
    processor.save_pretrained("checkpoint")
    code, replaced = re.subn(r'name = "Qwen/[^"]+"', 'name = "checkpoint"', own_model())
    assert replaced == 1
    names: dict[str, Any] = {}
    exec(code, names)
    answer = names["answer"]
    printed = capsys.readouterr().out.splitlines()
    assert f"{answer.baseline} → {answer.text} {answer.certainty}" == printed[0]
    assert answer.words
    assert len(printed) == 1 + len(answer.words)
    drawn = Image.open("looked-here.png")
    assert drawn.size == receipt.size
    assert np.abs(np.asarray(drawn, float) - np.asarray(answer.evidence.image)).max() > 20


@pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="needs mypy")
def test_the_snippet_is_typed(tmp_path: Path) -> None:
    """Torch and Transformers are not followed, for speed; the package is, wherever it is imported from."""
    (tmp_path / "own.py").write_text(own_model(), encoding="utf-8")
    (tmp_path / "wrong.py").write_text(own_model() + '\nanswer.txt\nvlm.ask("receipt.jpg")\n', encoding="utf-8")
    (tmp_path / "mypy.ini").write_text(
        "[mypy]\nstrict = True\n[mypy-torch.*,transformers.*]\nfollow_imports = skip\n"
        "[mypy-vea_sdk.*]\nfollow_imports = silent\n"
    )

    def checked(file: str) -> str:
        command = [sys.executable, "-P", "-m", "mypy", file]
        home = Path(vea.__file__).parents[1]  # mypy finds an installed package by itself, and refuses to be told
        environment = os.environ | ({} if home.name == "site-packages" else {"MYPYPATH": str(home)})
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True).stdout

    assert "no issues found" in checked("own.py")
    assert '"Answer[Evidence]" has no attribute "txt"' in checked("wrong.py")
    assert "No overload variant" in checked("wrong.py")
