"""The README's adapter is run as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
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
