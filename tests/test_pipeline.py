"""wrap, load, attend and ask on the tiny families: same rows as eager attention, right pictures, clear errors."""

from __future__ import annotations

import inspect
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from families import FAMILIES, TinyFamily
from PIL import Image
from transformers import AutoProcessor

import vea_sdk as vea
from vea_sdk.errors import (
    CheckpointError,
    ImageError,
    InvalidInputError,
    LayerError,
    NaNAttentionError,
    UnsupportedModelError,
)
from vea_sdk.prompts import HIGHLIGHT_PROMPT, PLAIN_PROMPT

names = pytest.mark.parametrize("name", FAMILIES)


def picture(seed: int = 0, width: int = 120, height: int = 80) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def wrapped(family: TinyFamily, **options: Any) -> vea.VLM:
    return vea.wrap(family.model, family.processor, **({"layers": [1, 2]} | options))


def eager_scores(family: TinyFamily, image: Image.Image, question: str, layers: list[int]) -> torch.Tensor:
    """Mean over layers of the head-averaged eager row of the last prompt token at the image tokens."""
    inputs = family.inputs(image, PLAIN_PROMPT.format(question=question))
    family.model.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            weights = family.model(**inputs, output_attentions=True).attentions
    finally:
        family.model.set_attn_implementation("sdpa")
    is_image = inputs["input_ids"][0] == family.image_token_id
    return torch.stack([weights[layer][0, :, -1, is_image].mean(0) for layer in layers]).mean(0)


@names
def test_attend_equals_eager_attention(name: str) -> None:
    family = FAMILIES[name]()
    evidence = wrapped(family).attend(picture(), "what is it?")
    expected = eager_scores(family, picture(), "what is it?", [1, 2])
    assert np.abs(evidence.scores - expected.numpy()).max() <= 2e-6
    assert evidence.layers == (1, 2)
    assert evidence.map().shape == (80, 120)
    assert evidence.highlight().size == evidence.overlay().size == (120, 80)
    assert evidence.highlight(canvas="input").size == evidence.layout.input_size[::-1]


def test_attend_stops_after_the_deepest_layer() -> None:
    family = FAMILIES["llava"]()
    ran = []
    blocks = family.model.model.language_model.layers
    handles = [block.register_forward_hook(lambda *_, n=n: ran.append(n)) for n, block in enumerate(blocks)]
    handles.append(family.model.lm_head.register_forward_hook(lambda *_: ran.append("head")))
    try:
        wrapped(family, layers=[0, 1]).attend(picture(), "what is it?")
    finally:
        for handle in handles:
            handle.remove()
    assert ran == [0]  # layer 1 ends the pass inside its attention


def test_attend_runs_to_the_end_where_weights_move() -> None:
    """With weights moved in and out around each module, a cut-off pass would leave some on the device."""
    accelerate = pytest.importorskip("accelerate")
    family = FAMILIES["llava"]()
    expected = wrapped(family).attend(picture(), "what?").scores
    state = {name: value.clone() for name, value in family.model.state_dict().items()}
    try:
        accelerate.cpu_offload(family.model, execution_device=torch.device("cpu"))
        vlm = vea.wrap(family.model, family.processor, layers=[1, 2])
        assert np.abs(vlm.attend(picture(), "what?").scores - expected).max() <= 1e-7
        assert all(p.device.type == "meta" for p in family.model.model.language_model.parameters())
    finally:
        accelerate.hooks.remove_hook_from_submodules(family.model)
        family.model.load_state_dict(state, assign=True)


@names
def test_ask_looks_highlights_and_asks_again(name: str) -> None:
    family = FAMILIES[name]()
    vlm = wrapped(family)
    answer = vlm.ask(picture(), "what is it?", max_new_tokens=4)
    assert np.abs(answer.evidence.scores - vlm.attend(picture(), "what is it?").scores).max() <= 2e-6
    assert list(answer.timings) == ["prepare", "baseline", "evidence", "answer"]

    def plain_generate(image: Image.Image, prompt: str) -> str:
        inputs = family.inputs(image, prompt.format(question="what is it?"))
        out = family.model.generate(**inputs, max_new_tokens=4, do_sample=False)
        return family.processor.batch_decode(out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)[
            0
        ].strip()

    assert answer.baseline == plain_generate(picture(), PLAIN_PROMPT)
    assert isinstance(answer.highlighted, Image.Image)
    assert answer.text == plain_generate(answer.highlighted, HIGHLIGHT_PROMPT)
    assert np.array_equal(np.asarray(answer.highlighted), np.asarray(answer.evidence.highlight()))


def test_mode_none_asks_once() -> None:
    family = FAMILIES["llava"]()
    answer = wrapped(family).ask(picture(), "what is it?", mode="none", max_new_tokens=3)
    assert answer.text == answer.baseline
    assert answer.highlighted is None
    assert "answer" not in answer.timings


@names
def test_several_pictures(name: str) -> None:
    family = FAMILIES[name]()
    vlm = wrapped(family)
    first, second = vlm.attend([picture(1), picture(2, 70, 110)], "compare")
    inputs = family.inputs([picture(1), picture(2, 70, 110)], PLAIN_PROMPT.format(question="compare"))
    with vea.capture(family.model, layers=[1, 2]) as session, torch.no_grad():
        family.model(**inputs)
    row = session.attention[:, 0, 0].mean(0).numpy()
    assert np.abs(np.concatenate([first.scores, second.scores]) - row).max() <= 1e-6
    assert (first.map().shape, second.map().shape) == ((80, 120), (110, 70))
    answer = vlm.ask([picture(1), picture(2, 70, 110)], "compare", max_new_tokens=2)
    assert [shown.size for shown in answer.highlighted] == [(120, 80), (70, 110)]


@names
def test_a_batch_equals_its_rows(name: str) -> None:
    family = FAMILIES[name]()
    vlm = wrapped(family)
    pictures = [picture(0), picture(1, 90, 140), picture(2, 200, 60)]
    questions = ["what is it?", "and what, please, is the thing in the other corner?", "why?"]
    for evidence, image, question in zip(vlm.attend_many(pictures, questions), pictures, questions, strict=True):
        expected = eager_scores(family, image, question, [1, 2])
        assert np.abs(evidence.scores - expected.numpy()).max() <= 2e-6
        assert evidence.question == question
        assert evidence.layer_scores.shape[0] == 2
    everywhere = vlm.attend_many(pictures[:1], questions[:1], layers="all")[0]
    assert everywhere.layers == tuple(sorted(vlm.adapter.attention_modules()))
    prompts = [PLAIN_PROMPT.format(question=question) for question in questions]
    texts = vlm.answer_many(pictures, prompts, max_new_tokens=4)
    alone = [vlm.ask(i, q, mode="none", max_new_tokens=4).text for i, q in zip(pictures, questions, strict=True)]
    assert texts == alone


def test_an_empty_batch_and_an_uneven_one() -> None:
    vlm = wrapped(FAMILIES["llava"]())
    assert vlm.attend_many([], []) == []
    assert vlm.answer_many([], []) == []
    for ask in (vlm.attend_many, vlm.answer_many):
        with pytest.raises(InvalidInputError, match="2 pictures and 1"):
            ask([picture(), picture()], ["what?"])


def test_own_prompts_are_used() -> None:
    family = FAMILIES["llava"]()
    other = wrapped(family, plain_prompt="Look: {question}").attend(picture(), "what?")
    inputs = family.inputs(picture(), "Look: what?")
    with vea.capture(family.model, layers=[1, 2]) as session, torch.no_grad():
        family.model(**inputs)
    assert np.abs(session.attention[:, 0, 0].mean(0).numpy() - other.scores).max() <= 1e-6
    with pytest.raises(InvalidInputError, match="question"):
        wrapped(family, plain_prompt="no place")


def test_a_processor_without_chat_template() -> None:
    family = FAMILIES["llava"]()
    template = family.processor.chat_template
    try:
        family.processor.chat_template = None
        assert wrapped(family).attend(picture(), "what?").map().shape == (80, 120)
    finally:
        family.processor.chat_template = template


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype: torch.dtype) -> None:
    family = FAMILIES["internvl"]()
    expected = wrapped(family, layers=[0]).attend(picture(), "what?").scores
    try:
        family.model.to(dtype)
        scores = wrapped(family, layers=[0]).attend(picture(), "what?").scores
    finally:
        family.model.float()
    assert np.corrcoef(scores, expected)[0, 1] > 0.9


@names
def test_load_from_a_saved_checkpoint(name: str, tmp_path: Path) -> None:
    family = FAMILIES[name]()
    family.model.save_pretrained(tmp_path)
    family.processor.save_pretrained(tmp_path)
    if "ImageProcessorOnly" in type(family.processor).__name__:
        pytest.skip("this family's processor has a video part, which Transformers builds with torchvision only")
    with pytest.warns(UserWarning, match="no profile"):
        vlm = vea.load(tmp_path, device="cpu")
    assert vlm.layers == (2, 3)
    # Where torchvision is installed, the processor that is loaded resizes with it, the family's own with Pillow.
    loaded = AutoProcessor.from_pretrained(tmp_path)
    expected = vea.wrap(family.model, loaded, layers=[2, 3]).attend(picture(), "what?").scores
    assert np.abs(vlm.attend(picture(), "what?").scores - expected).max() <= 1e-6

    profile = {"model": "tiny", "layers": [1], "source": "this test"}
    (tmp_path / "vea_profile.json").write_text(json.dumps(profile))
    assert vea.load(tmp_path, device="cpu").layers == (1,)
    spread = vea.load(tmp_path, device_map={"": "cpu"}, dtype="bfloat16", layers=[0])
    assert spread.model.dtype == torch.bfloat16
    assert spread.attend(picture(), "what?").scores.dtype == np.float32


def test_load_takes_every_option_of_wrap() -> None:
    options = set(inspect.signature(vea.VLM).parameters) - {"model", "processor"}
    assert options <= set(inspect.signature(vea.load).parameters)


# --- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("absent", "name", "options"),
    [("torchvision", "qwen2_5_vl", ""), ("accelerate", "llava", ", device_map='auto'")],
)
def test_load_names_the_extra_that_is_missing(absent: str, name: str, options: str, tmp_path: Path) -> None:
    """In a process of its own: Transformers looks for its packages once."""
    family = FAMILIES[name]()
    family.model.save_pretrained(tmp_path)
    family.processor.save_pretrained(tmp_path)
    if name == "qwen2_5_vl":  # as the hub has it, with the part for videos
        described = json.loads((tmp_path / "processor_config.json").read_text())
        described["processor_class"] = "Qwen2_5_VLProcessor"
        (tmp_path / "processor_config.json").write_text(json.dumps(described))
    code = (
        f"import sys; sys.modules[{absent!r}] = None\n"
        "import vea_sdk as vea\n"
        f"try: vea.load({str(tmp_path)!r}{options})\n"
        "except vea.VeaError as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("CheckpointError")
    assert f"{absent} not installed: pip install 'vea-sdk[hf]'" in done.stdout


def test_bad_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json"):
        vea.load(tmp_path)
    with pytest.raises(CheckpointError, match="no checkpoint folder"):
        vea.load(tmp_path / "absent")
    family = FAMILIES["llava"]()
    family.processor.save_pretrained(tmp_path)
    config = {"model_type": "llama", "hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnsupportedModelError, match="not an image-text-to-text model"):
        vea.load(tmp_path)
    family.model.config.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="no model can be loaded"):
        vea.load(tmp_path)


OWN_CODE = {
    "config.json": {"auto_map": {"AutoConfig": "own.C", "AutoModelForImageTextToText": "own.M"}},
    "processor_config.json": {"auto_map": {"AutoProcessor": "own.P"}},
    "tokenizer_config.json": {"auto_map": {"AutoTokenizer": ["own.T", None]}},
}


@pytest.mark.parametrize(
    ("changed", "needed"),
    [
        ({"config.json": {"model_type": "own", **OWN_CODE["config.json"]}}, True),
        (OWN_CODE, False),
        ({"processor_config.json": OWN_CODE["processor_config.json"]}, False),
        ({"tokenizer_config.json": OWN_CODE["tokenizer_config.json"]}, False),
    ],
)
def test_code_of_a_checkpoint_is_never_run(
    changed: dict[str, dict[str, Any]], needed: bool, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is anybody asked, who would say yes here; where Transformers has the classes, its own are used."""
    folder = tmp_path / "checkpoint"
    shutil.copytree(checkpoint, folder)
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nfrom transformers import *\n")
    for name, fields in changed.items():
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    asked: list[str] = []
    monkeypatch.setattr("builtins.input", lambda text: asked.append(text) or "y")
    if needed:
        with pytest.raises(CheckpointError, match=r"brings code \(auto_map\).*vea\.wrap"):
            vea.load(folder, device="cpu")
    else:
        assert vea.load(folder, device="cpu", layers=[1], trust_remote_code=False).layers == (1,)
    with pytest.raises(CheckpointError, match=r"trust_remote_code=True.*runs no code"):
        vea.load(folder, trust_remote_code=True)
    assert not asked
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model.bin.index.json", "model.bin"])
def test_pickled_weights_are_refused(name: str, checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(checkpoint, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    marker = tmp_path / "ran"

    class Evil:
        def __reduce__(self) -> Any:
            return marker.touch, ()

    torch.save({"weight": Evil()}, folder / "pytorch_model.bin")
    if name.endswith("json"):
        (folder / name).write_text(json.dumps({"metadata": {}, "weight_map": {"weight": "pytorch_model.bin"}}))
    else:
        (folder / "pytorch_model.bin").rename(folder / name)
    with pytest.raises(CheckpointError, match="no model can be loaded"):
        vea.load(folder, device="cpu")
    assert not marker.exists()


def test_load_refuses_device_and_device_map(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="exclude"):
        vea.load(tmp_path, device="cpu", device_map="auto")


def test_bad_arguments() -> None:
    family = FAMILIES["llava"]()
    vlm = wrapped(family)
    with pytest.raises(InvalidInputError, match="'blur' is unknown"):
        vlm.ask(picture(), "what?", mode="blur")  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="no picture"):
        vlm.attend([], "what?")
    with pytest.raises(ImageError):
        vlm.attend(Image.new("RGB", (0, 5)), "what?")
    with pytest.raises(ImageError, match="pixels"):
        wrapped(family, max_pixels=100).attend(picture(), "what?")
    with pytest.raises(LayerError):
        wrapped(family, layers=[9])
    with pytest.raises(UnsupportedModelError):
        vea.wrap(torch.nn.Linear(2, 2), family.processor, layers=[0])


def test_nan_attention_is_an_error() -> None:
    family = FAMILIES["llava"]()
    weight = family.model.model.language_model.layers[0].self_attn.q_proj.weight
    before = weight.data.clone()
    weight.data[0] = torch.nan
    try:
        with pytest.raises(NaNAttentionError, match="layer"):
            wrapped(family).attend(picture(), "what?").map()
    finally:
        weight.data = before


def test_odd_pictures_are_converted() -> None:
    vlm = wrapped(FAMILIES["llava"]())
    rgb = picture()
    for mode in ("L", "P", "CMYK", "RGBA", "1", "LA", "I;16"):
        converted = Image.fromarray(np.zeros((80, 120), np.uint16)) if mode == "I;16" else rgb.convert(mode)
        assert vlm.attend(converted, "what?").highlight().mode == "RGB"


def test_nothing_of_the_model_is_changed() -> None:
    family = FAMILIES["llava"]()

    def state() -> dict[str, Any]:
        return {
            name: (set(vars(module)), dict(module._forward_hooks), dict(module._forward_pre_hooks))
            for name, module in family.model.named_modules()
        }

    before = state()
    wrapped(family).ask(picture(), "what?", max_new_tokens=2)
    assert state() == before


def test_an_option_that_is_none(family: Any) -> None:
    """A slip of the pen is not taken for an option that changes nothing."""
    vlm = vea.wrap(family.model, family.processor, layers=[1])
    for call in (
        lambda: vlm.attend(picture(), "what?", sigmaa=1),  # type: ignore[call-overload]
        lambda: vlm.attend_many([picture()], ["what?"], sigmaa=1),  # type: ignore[call-arg]
        lambda: vea.wrap(family.model, family.processor, sigmaa=1),  # type: ignore[call-arg]
    ):
        with pytest.raises(TypeError, match=r"'sigmaa'"):
            call()


def test_a_tokenizer_is_no_processor(family: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"is a tokenizer.*AutoProcessor"):
        vea.wrap(family.model, family.processor.tokenizer)
