"""The guide for models of one's own: its blocks are run, and what they capture is compared with float64."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import tomllib
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.special import erf, softmax
from torch import Tensor

import vea_sdk as vea
from vea_sdk.adapters import Adapter, AttentionCall, registry
from vea_sdk.errors import CaptureError, InvalidInputError, UnverifiedModelWarning

GUIDE = (Path(__file__).parent.parent / "docs" / "own-model.md").read_text(encoding="utf-8")
IMAGE, ROWS, COLS, PATCH, HEADS = 256, 4, 6, 8, 4
TOLERANCE = 2e-6  # float32 against float64, through three layers
KINDS = {"": "OwnAdapter", "Eager": "EagerAdapter", "Fused": "FusedAdapter"}
kinds = pytest.mark.parametrize("kind", KINDS)


def blocks(language: str = "python") -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)


def block(marker: str) -> str:
    (code,) = [code for code in blocks() if marker in code]
    return code


@pytest.fixture
def guide(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """The names that the guide's blocks leave behind, run one after the other."""
    monkeypatch.setattr(registry, "_adapters", dict(vea.adapters.families()))
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(0).integers(0, 256, (80, 90, 3), dtype=np.uint8)
    Image.fromarray(noise).save("dog.png")
    torch.manual_seed(0)
    names: dict[str, Any] = {"__name__": "own_vlm"}
    for code in blocks():
        with pytest.warns(UnverifiedModelWarning) if "image_positions" in code else nullcontext():  # the guide says so
            exec(code, names)
    return names


def build(guide: dict[str, Any], kind: str) -> Any:
    """The guide's model with one kind of attention, its weights large enough for attention far from even."""
    torch.manual_seed(1)
    model = guide["OwnVLM"](guide[f"{kind}Attention"]).eval()
    with torch.no_grad():
        for one in model.blocks:
            one.attention.qkv.weight.mul_(4)
    return model


def norm(x: NDArray[np.float64], weight: NDArray[np.float64], bias: NDArray[np.float64]) -> NDArray[np.float64]:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * weight + bias


def float64_rows(model: Any, ids: Tensor, pixels: Tensor) -> NDArray[np.float64]:
    """Head means of the last token's attention to the image tokens, [layers, M], from the weights alone."""
    w = {name: parameter.detach().double().numpy() for name, parameter in model.named_parameters()}
    cells = pixels.double().numpy().reshape(-1, 3, ROWS, PATCH, COLS, PATCH).transpose(0, 2, 4, 1, 3, 5)
    kernel = w["patches.weight"].reshape(len(w["patches.bias"]), -1)
    image = ids.numpy() == IMAGE
    x = w["words.weight"][ids.numpy()]
    x[image] = cells.reshape(-1, kernel.shape[1]) @ kernel.T + w["patches.bias"]
    x = x + w["places.weight"][: len(ids)]
    future = np.triu(np.ones((len(ids), len(ids)), dtype=bool), 1)
    rows = []
    for i in range(len(model.blocks)):
        b = {name.removeprefix(f"blocks.{i}."): value for name, value in w.items() if name.startswith(f"blocks.{i}.")}
        h = norm(x, b["norm1.weight"], b["norm1.bias"]) @ b["attention.qkv.weight"].T + b["attention.qkv.bias"]
        q, k, v = h.reshape(len(ids), 3, HEADS, -1).transpose(1, 2, 0, 3)
        weights = softmax(np.where(future, -np.inf, q @ k.transpose(0, 2, 1) / np.sqrt(q.shape[-1])), axis=-1)
        rows.append(weights[:, -1, image].mean(0))
        y = (weights @ v).transpose(1, 0, 2).reshape(len(ids), -1)
        x = x + y @ b["attention.out.weight"].T + b["attention.out.bias"]
        h = norm(x, b["norm2.weight"], b["norm2.bias"]) @ b["mlp.0.weight"].T + b["mlp.0.bias"]
        x = x + (h * 0.5 * (1 + erf(h / np.sqrt(2)))) @ b["mlp.2.weight"].T + b["mlp.2.bias"]
    return np.stack(rows)


def test_the_blocks_of_the_guide(guide: dict[str, Any]) -> None:
    assert guide["scores"].shape == (3, 1, 1, ROWS * COLS)
    truth = float64_rows(guide["model"], guide["inputs"]["input_ids"][0], guide["inputs"]["pixel_values"])
    assert np.abs(guide["scores"][:, 0, 0].numpy() - truth).max() <= TOLERANCE
    assert guide["answer"].evidence.map().shape == (80, 90)
    assert Image.open("looked-here.png").size == (90, 80)
    added = [code for code in blocks() if "vea." in code or "@register" in code]
    assert sum(len(re.findall(r"^.*\S.*$", code, re.MULTILINE)) for code in added) <= 30, "the guide's title"


@kinds
def test_rows_equal_float64_attention(guide: dict[str, Any], kind: str) -> None:
    model = build(guide, kind)
    inputs = guide["OwnProcessor"]()([guide["picture"]] * 2, "first <image> and <image>, which?")
    with vea.capture(model, "all", queries="all", adapter=guide[KINDS[kind]]) as session:
        ids = model.generate(**inputs, max_new_tokens=4)[0]
    prompt = inputs["input_ids"].shape[1]
    truth = np.stack([float64_rows(model, ids[: prompt + n], inputs["pixel_values"]) for n in range(4)], 1)
    found = session.attention[:, 0].numpy()
    assert found.shape == truth.shape == (3, 4, 2 * ROWS * COLS)
    assert np.abs(found - truth).max() <= TOLERANCE
    assert truth.max() > 3 * truth.mean(), "rows that are almost even prove little"


def test_another_thread_inside_the_same_layer(guide: dict[str, Any]) -> None:
    model = build(guide, "")
    inputs = guide["OwnProcessor"]()([guide["picture"]], "what <image>?")
    watched = threading.get_ident()

    def intrude(*_: Any) -> None:  # while the session's own thread is between the hooks of the layer
        if threading.get_ident() == watched:
            other = threading.Thread(target=lambda: model(**inputs))
            other.start()
            other.join()

    handle = model.blocks[1].attention.qkv.register_forward_pre_hook(intrude)
    with torch.no_grad(), vea.capture(model, "all", adapter=guide[KINDS[""]]) as session:
        model(**inputs)
    handle.remove()
    truth = float64_rows(model, inputs["input_ids"][0], inputs["pixel_values"])
    assert np.abs(session.attention[:, 0, 0].numpy() - truth).max() <= TOLERANCE


@kinds
def test_the_whole_method(guide: dict[str, Any], kind: str) -> None:
    model = build(guide, kind)
    vlm = vea.wrap(model, guide["OwnProcessor"](), layers=[0, 2], adapter=guide[KINDS[kind]])
    evidence = vlm.attend(guide["picture"], "Where?")
    inputs = guide["OwnProcessor"]()([guide["picture"]], "<image>\n" + vlm.plain_prompt.format(question="Where?"))
    truth = float64_rows(model, inputs["input_ids"][0], inputs["pixel_values"])[[0, 2]].mean(0)
    assert np.abs(evidence.scores - truth).max() <= TOLERANCE
    expected = vea.evidence.build_map(truth, (ROWS, COLS), (80, 90), lam=vlm.lam, sigma=vlm.sigma)
    assert np.abs(evidence.map() - expected).max() <= 1e-4
    answer = vlm.ask(guide["picture"], "Where?", max_new_tokens=3)
    assert answer.evidence.scores == pytest.approx(evidence.scores, abs=1e-6)
    baseline = model.generate(**inputs, max_new_tokens=3)[:, inputs["input_ids"].shape[1] :]
    assert answer.baseline == guide["OwnProcessor"]().batch_decode(baseline)[0].strip()


def test_the_boxes_are_where_the_picture_goes(guide: dict[str, Any]) -> None:
    processor, size = guide["OwnProcessor"](), (80, 90)
    plain = Image.new("RGB", (90, 80), "grey")
    before = processor([plain], "<image>")
    (layout,) = guide["OwnAdapter"](guide["model"]).layouts(before, [size], processor)
    for token, box in enumerate(layout.token_boxes().astype(int).tolist()):
        painted = plain.copy()
        painted.paste("white", tuple(box))
        change = (processor([painted], "<image>")["pixel_values"] - before["pixel_values"]).abs().sum((0, 1))
        cells = change.view(ROWS, PATCH, COLS, PATCH).sum((1, 3)).flatten()
        assert int(cells.argmax()) == token
        assert cells[token] > 0.6 * cells.sum()


@kinds
def test_right_padding(guide: dict[str, Any], kind: str) -> None:
    """Causal attention keeps what follows the last valid token out of its row."""

    class PaddedVLM(guide["OwnVLM"]):  # type: ignore[misc]
        def forward(self, input_ids: Tensor, pixel_values: Tensor, attention_mask: Tensor) -> Tensor:
            return super().forward(input_ids, pixel_values)

    guide["OwnVLM"] = PaddedVLM
    model, picture = build(guide, kind), guide["picture"]
    prompts = [guide["OwnProcessor"]()([picture], text) for text in ("<image>Where?", "Is it in <image> or behind?")]
    rows = [prompt["input_ids"][0] for prompt in prompts]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=ord("x"))
    mask = torch.stack([torch.arange(ids.shape[1]) < len(row) for row in rows]).long()
    pixels = torch.cat([prompt["pixel_values"] for prompt in prompts])
    with vea.capture(model, "all", adapter=guide[KINDS[kind]]) as session, torch.no_grad():
        model(ids, pixels, mask)
    for row, prompt in enumerate(prompts):
        truth = float64_rows(model, rows[row], prompt["pixel_values"])
        assert np.abs(session.attention[:, row, 0].numpy() - truth).max() <= TOLERANCE


def test_a_cache_of_ones_own(guide: dict[str, Any]) -> None:
    """Keys of earlier passes are handed over, too; the pass is known from the shapes."""

    class Cached(guide["Attention"]):  # type: ignore[misc]
        def forward(self, x: Tensor) -> tuple[Tensor, None]:
            self.q, k, v = self.split(x)
            if x.shape[1] == 1:
                k, v = torch.cat([self.k, k], 2), torch.cat([self.v, v], 2)
            self.k, self.v = k, v
            scores = self.q @ k.mT / self.q.shape[-1] ** 0.5
            future = torch.ones_like(scores, dtype=torch.bool).triu(1 + k.shape[2] - x.shape[1])
            y = scores.masked_fill(future, float("-inf")).softmax(-1) @ v
            return self.out(y.transpose(1, 2).flatten(2)), None

    class CachedAdapter(guide["OwnAdapter"]):  # type: ignore[misc]
        def attention_call(self, module: Any, inputs: Any, output: Any) -> AttentionCall:
            return AttentionCall(module.q, module.k, causal=inputs["x"].shape[1] > 1)

    class CachedVLM(guide["OwnVLM"]):  # type: ignore[misc]
        def forward(self, input_ids: Tensor, pixel_values: Tensor, use_cache: bool = True) -> Tensor:
            if not hasattr(self.blocks[0].attention, "k"):
                return super().forward(input_ids, pixel_values)
            x = self.words(input_ids[:, -1:]) + self.places.weight[input_ids.shape[1] - 1]
            for one in self.blocks:
                x = one(x)
            return self.head(x)

    guide["CachedAttention"], guide["OwnVLM"] = Cached, CachedVLM
    model = build(guide, "Cached")
    inputs = guide["OwnProcessor"]()([guide["picture"]], "<image>Where?")
    with vea.capture(model, "all", queries="all", adapter=CachedAdapter) as session:
        ids = model.generate(**inputs, max_new_tokens=4)[0]
    prompt = inputs["input_ids"].shape[1]
    truth = np.stack([float64_rows(model, ids[: prompt + n], inputs["pixel_values"]) for n in range(4)], 1)
    assert np.abs(session.attention[:, 0].numpy() - truth).max() <= TOLERANCE

    class AlwaysCausal(guide["OwnAdapter"]):  # type: ignore[misc]
        def attention_call(self, module: Any, inputs: Any, output: Any) -> AttentionCall:
            return AttentionCall(module.q, module.k, causal=True)

    with (
        vea.capture(fresh := build(guide, "Cached"), "all", queries="all", adapter=AlwaysCausal),
        pytest.raises(InvalidInputError, match=r"layer 0: .*causal=True.* 1 tokens after \d+ earlier ones"),
    ):
        fresh.generate(**inputs, max_new_tokens=2)


def test_what_is_not_handed_over_is_an_error(guide: dict[str, Any]) -> None:
    class Wrong(guide["OwnAdapter"]):  # type: ignore[misc]
        def attention_call(self, module: Any, inputs: Any, output: Any) -> Any:
            return module.split(inputs["x"])[:2]

    class Flat(guide["OwnAdapter"]):  # type: ignore[misc]
        def attention_call(self, module: Any, inputs: Any, output: Any) -> AttentionCall:
            q, k, _ = module.split(inputs["x"]).flatten(1, 2)
            return AttentionCall(q, k)

    inputs = guide["inputs"]
    for kind in ("Eager", "Fused"):
        model = build(guide, kind)
        with (
            vea.capture(model, "all", adapter=guide["OwnAdapter"]),
            pytest.raises(CaptureError, match=rf"layer 0 \({kind}Attention\).*returned_weights.*attention_call"),
        ):
            model(**inputs)
    model = build(guide, "Fused")
    with (
        vea.capture(model, "all", adapter=Flat),
        pytest.raises(InvalidInputError, match="query"),
    ):
        model(**inputs)
    with (
        vea.capture(model, "all", adapter=Wrong),
        pytest.raises(InvalidInputError, match=r"layer 0 .*Wrong returned Tensor.*AttentionCall"),
    ):
        model(**inputs)


def test_a_second_adapter_for_the_model_type_is_refused(guide: dict[str, Any]) -> None:
    class Second(Adapter):
        model_types = ("own_vlm",)

    with pytest.raises(InvalidInputError, match=r"OwnAdapter already serves model type 'own_vlm', so Second cannot"):
        vea.adapters.register(Second)
    assert vea.adapters.families()["own_vlm"] is guide["OwnAdapter"]


OUTSIDE = """
import json, sys, warnings
import numpy as np
import torch
import vea_sdk as vea

assert "own_vlm" not in sys.modules
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    served = vea.adapters.families()
import own_vlm
from PIL import Image

torch.manual_seed(0)
model = own_vlm.OwnVLM().eval()
inputs = own_vlm.OwnProcessor()([Image.new("RGB", (90, 80), "red")], "<image>Where?")
with vea.capture(model, "all") as session, torch.no_grad():
    model(**inputs)
(layout,) = vea.adapters.find(model).layouts(inputs, [(80, 90)], None)
print(json.dumps({
    "adapter": served["own_vlm"].__module__ + ":" + served["own_vlm"].__qualname__,
    "llava": served["llava"].__module__,
    "warnings": [str(one.message) for one in caught],
    "positions": session.image_index.tolist(),
    "shape": list(session.attention.shape),
    "grid": layout.grid_size,
}))
"""


def install(folder: Path, name: str, code: str, entries: dict[str, str]) -> None:
    """Lay a package into a folder as an installer leaves it."""
    (folder / f"{name}.py").write_text(code, encoding="utf-8")
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 1.0\n")
    lines = [f"{entry} = {value}" for entry, value in entries.items()]
    (info / "entry_points.txt").write_text("\n".join(["[vea_sdk.adapters]", *lines, ""]))


def test_an_installed_package_registers_itself(tmp_path: Path) -> None:
    (toml,) = blocks("toml")
    entries = tomllib.loads(toml)["project"]["entry-points"]["vea_sdk.adapters"]
    install(tmp_path, "own_vlm", block("class OwnVLM") + block("@register"), entries)
    clash = "from vea_sdk.adapters import Adapter\nclass Mine(Adapter):\n    model_types = ('llava',)\n"
    install(tmp_path, "clashing", clash, {"mine": "clashing:Mine"})
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-P", "-c", OUTSIDE], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["adapter"] == entries["own_vlm"]
    assert found["positions"] == [list(range(ROWS * COLS))]
    assert found["shape"] == [3, 1, 1, ROWS * COLS]
    assert found["grid"] == [ROWS, COLS]
    assert found["llava"] == "vea_sdk.adapters.llava"
    (warning,) = found["warnings"]
    assert re.search(r"adapter mine \(clashing:Mine\) was not loaded: LlavaAdapter already serves.*'llava'", warning)
