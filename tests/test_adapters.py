"""Adapters: attention modules, image token positions, the registry, and what is said when something is wrong."""

from __future__ import annotations

import importlib
import warnings
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
from vea_sdk import adapters
from vea_sdk.adapters import Adapter, registry
from vea_sdk.adapters.gemma3 import pan_and_scan
from vea_sdk.adapters.internvl import tile_arrangement
from vea_sdk.capture.layers import resolve_layers
from vea_sdk.errors import GeometryError, ImageTokenError, InvalidInputError, UnsupportedModelError

ATTENTION_CLASSES = {
    "llava": "LlamaAttention",
    "llava_next": "MistralAttention",
    "qwen2_vl": "Qwen2VLAttention",
    "qwen2_5_vl": "Qwen2_5_VLAttention",
    "gemma3": "Gemma3Attention",
    "internvl": "Qwen2Attention",
}


def picture(height: int, width: int) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


# --- attention modules -------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["whole", "base model"])
@pytest.mark.parametrize("name", FAMILIES)
def test_attention_modules_are_the_decoders(name: str, part: str) -> None:
    model = FAMILIES[name]().model
    adapter = adapters.find(model if part == "whole" else model.model)
    assert adapter.n_layers == 4
    modules = adapter.attention_modules()
    assert list(modules) == [0, 1, 2, 3]
    for layer, module in modules.items():
        assert type(module).__name__ == ATTENTION_CLASSES[name]
        assert module is model.model.language_model.layers[layer].self_attn
        assert module.layer_idx == layer
    assert adapter.decoder is model.model.language_model
    assert adapter.image_token_id == FAMILIES[name]().image_token_id


class Wrapper(nn.Module):
    """Wraps as PEFT does."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.inner = model

    def get_base_model(self) -> nn.Module:
        return self.inner


WRAPS = [
    Wrapper,
    torch.compile,
    lambda model: torch.compile(Wrapper(model)),
    nn.DataParallel,
    lambda model: nn.DataParallel(Wrapper(nn.DataParallel(model))),
]


@pytest.mark.parametrize("wrap", WRAPS)
def test_wrappers_are_seen_through(wrap: Any) -> None:
    model = FAMILIES["llava"]().model
    adapter = adapters.find(wrap(model))
    assert adapter.model is model
    assert len(adapter.attention_modules()) == 4


def test_layers_without_softmax_attention_are_absent() -> None:
    config = hf.Qwen3NextConfig(
        vocab_size=32,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        linear_num_key_heads=2,
        linear_num_value_heads=2,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        num_experts=2,
        num_experts_per_tok=1,
        moe_intermediate_size=16,
        shared_expert_intermediate_size=16,
        layer_types=["linear_attention", "full_attention", "linear_attention", "full_attention"],
    )
    adapter = Adapter(hf.Qwen3NextForCausalLM(config))
    assert adapter.n_layers == 4
    assert list(adapter.attention_modules()) == [1, 3]


def test_a_stack_under_another_name_is_found() -> None:
    config = hf.GPT2Config(n_layer=3, n_embd=16, n_head=2, vocab_size=32)
    modules = Adapter(hf.GPT2LMHeadModel(config)).attention_modules()
    assert [type(module).__name__ for module in modules.values()] == ["GPT2Attention"] * 3


class FineAttention(nn.Module):
    pass


class Block(nn.Module):
    def __init__(self, attention_name: str) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(4)
        self.mlp = nn.Linear(4, 4)
        setattr(self, attention_name, FineAttention())


class PlainModel(nn.Module):
    def __init__(self, *stacks: str, attention_name: str = "mixer") -> None:
        super().__init__()
        for stack in stacks:
            setattr(self, stack, nn.ModuleList(Block(attention_name) for _ in range(3)))


@pytest.mark.parametrize("attention_name", ["mixer", "attn", "self_attn"])
def test_a_plain_torch_model(attention_name: str) -> None:
    model = PlainModel("blocks", attention_name=attention_name)
    adapter = Adapter(model)
    assert adapter.n_layers == 3
    assert list(adapter.attention_modules()) == [0, 1, 2]
    assert adapter.attention_modules()[1] is getattr(model.blocks[1], attention_name)
    assert adapter.decoder is model


def test_several_stacks_are_not_guessed_between() -> None:
    with pytest.raises(UnsupportedModelError, match=r"several stacks .*\(vision, text\).*attention_modules"):
        Adapter(PlainModel("vision", "text")).attention_modules()


class TwoStacks(Adapter):
    """What the error asks for."""

    listed = False

    def attention_modules(self) -> Any:
        blocks: Any = self.model.text
        found = [block.mixer for block in blocks]
        return found if self.listed else dict(enumerate(found))


def test_a_model_of_several_stacks_by_attention_modules_alone() -> None:
    model = PlainModel("vision", "text")
    for listed in (False, True):
        adapter = TwoStacks(model)
        adapter.listed = listed
        assert adapter.n_layers == 3
        assert adapter.modules_by_layer() == {number: block.mixer for number, block in enumerate(model.text)}
        assert resolve_layers("all", adapter) == (0, 1, 2)


@pytest.mark.parametrize("said", [None, 3, {"a": nn.Linear(1, 1)}, {0: "mixer"}, [1, 2], {-1: nn.Linear(1, 1)}])
def test_attention_modules_that_are_none(said: Any) -> None:
    class Wrong(Adapter):
        def attention_modules(self) -> Any:
            return said

    with pytest.raises(
        InvalidInputError, match=r"Wrong.attention_modules\(\).*dict \{layer number: module\}, or a list"
    ):
        resolve_layers("all", Wrong(PlainModel("text")))


def test_a_model_without_attention_says_so() -> None:
    with pytest.raises(UnsupportedModelError, match="Sequential has no stack of attention blocks"):
        Adapter(nn.Sequential(nn.Linear(2, 2))).attention_modules()


def test_layers_that_all_lack_softmax_attention_say_so() -> None:
    model = PlainModel("layers")
    for block in model.layers:
        del block.mixer
    with pytest.raises(UnsupportedModelError, match="none of its 3 decoder layers"):
        Adapter(model).attention_modules()


# --- image positions ---------------------------------------------------------------------------------------


def test_image_positions_in_prompt_order_with_padding() -> None:
    adapter = adapters.find(FAMILIES["llava"]().model)
    rng = np.random.default_rng(0)
    for _ in range(20):
        image = rng.random((4, 30)) < rng.random((4, 1))
        image[0, 3] = True
        ids = torch.where(torch.from_numpy(image), adapter.image_token_id, 7)
        found = adapter.image_positions(ids)
        assert found.dtype == torch.int64
        assert found.shape == (4, image.sum(axis=1).max())
        for row, truth in zip(found, image, strict=True):
            positions = np.flatnonzero(truth)
            assert row.tolist() == [*positions, *[-1] * (len(row) - len(positions))]


def test_a_prompt_without_image_tokens_is_named() -> None:
    adapter = adapters.find(FAMILIES["llava"]().model)
    with pytest.raises(ImageTokenError, match=r"llava: no image token \(id 260\) among the 9 tokens.*image_positions="):
        adapter.image_positions(torch.ones(1, 9, dtype=torch.int64))


def test_input_ids_need_a_batch() -> None:
    adapter = adapters.find(FAMILIES["llava"]().model)
    with pytest.raises(InvalidInputError, match=r"\(9,\)"):
        adapter.image_positions(torch.ones(9, dtype=torch.int64))


def test_a_configuration_without_image_token_is_named() -> None:
    adapter = Adapter(PlainModel("blocks"))
    with pytest.raises(ImageTokenError, match="PlainModel: the configuration names no image_token_id"):
        adapter.image_positions(torch.ones(1, 9, dtype=torch.int64))


# --- layouts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
def test_layouts_of_a_batch(name: str) -> None:
    family = FAMILIES[name]()
    sizes = [(60, 100), (101, 67), (50, 50)]
    rows = [[picture(*sizes[0]), picture(*sizes[1])], [picture(*sizes[2])]]
    inputs = family.inputs(rows, ["two", "one picture here"])
    layouts = adapters.find(family.model).layouts(inputs, sizes, family.processor)
    assert [layout.original_size for layout in layouts] == sizes
    by_row = (inputs["input_ids"] == family.image_token_id).sum(dim=1).tolist()
    assert by_row == [layouts[0].n_tokens + layouts[1].n_tokens, layouts[2].n_tokens]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_missing_picture_is_counted(name: str) -> None:
    family = FAMILIES[name]()
    inputs = family.inputs([picture(60, 100), picture(60, 100)])
    with pytest.raises(GeometryError, match=rf"{name}: .*(image tokens|pictures).* prompt order"):
        adapters.find(family.model).layouts(inputs, [(60, 100)], family.processor)


def test_the_mismatch_names_numbers_grids_and_remedy() -> None:
    family = FAMILIES["llava"]()
    inputs = family.inputs([picture(60, 100), picture(60, 100)])
    with pytest.raises(GeometryError) as error:
        adapters.find(family.model).layouts(inputs, [(60, 100)], family.processor)
    for part in ("llava", "128 image tokens", "by row: [128]", "account for 64", "60x100", "8x8", "processor"):
        assert part in str(error.value)


def test_pictures_must_not_cross_rows() -> None:
    """The totals agree, but the rows hold 108 and 72 tokens, and 36 + 108 + 36 cannot be split that way."""
    family = FAMILIES["internvl"]()
    rows = [[picture(60, 120)], [picture(48, 48), picture(48, 48)]]
    inputs = family.inputs(rows, ["a", "b"])
    right, wrong = [(60, 120), (48, 48), (48, 48)], [(48, 48), (60, 120), (48, 48)]
    adapter = adapters.find(family.model)
    assert [layout.n_tokens for layout in adapter.layouts(inputs, right, family.processor)] == [108, 36, 36]
    with pytest.raises(GeometryError, match=r"by row: \[108, 72\]"):
        adapter.layouts(inputs, wrong, family.processor)


def test_sizes_given_only_in_the_call_are_refused() -> None:
    family = FAMILIES["llava"]()
    inputs = family.inputs([picture(60, 100)], crop_size={"height": 36, "width": 36})
    with pytest.raises(GeometryError, match=r"\(48, 48\).*\(36, 36\)"):
        adapters.find(family.model).layouts(inputs, [(60, 100)], family.processor)


def test_pan_and_scan_with_unknown_options_is_refused() -> None:
    family = FAMILIES["gemma3"]()
    options = {"do_pan_and_scan": True, "pan_and_scan_min_crop_size": 16}
    inputs = family.inputs([picture(60, 200)], **options)
    with pytest.raises(GeometryError, match=r"256 image tokens.*account for 64.*set them on the processor"):
        adapters.find(family.model).layouts(inputs, [(60, 200)], family.processor)


def test_an_empty_picture_is_refused() -> None:
    family = FAMILIES["llava"]()
    inputs = family.inputs([picture(60, 100)])
    with pytest.raises(GeometryError, match=r"\(0, 100\)"):
        adapters.find(family.model).layouts(inputs, [(0, 100)], family.processor)


def test_without_geometry_the_base_adapter_says_what_to_override() -> None:
    family = FAMILIES["llava"]()
    inputs = family.inputs([picture(60, 100)])
    with pytest.raises(GeometryError, match="override lay_out"):
        Adapter(family.model).layouts(inputs, [(60, 100)], family.processor)


@pytest.mark.parametrize("size", [(1, 150), (400, 4), (3, 300)], ids=str)
@pytest.mark.parametrize("name", FAMILIES)
def test_hairline_pictures(name: str, size: tuple[int, int]) -> None:
    family = FAMILIES[name]()
    inputs = family.inputs(picture(*size))
    (layout,) = adapters.find(family.model).layouts(inputs, [size], family.processor)
    assert layout.original_size == size


# --- recomputed tilings ------------------------------------------------------------------------------------


def test_pan_and_scan_crops_are_the_processors_own() -> None:
    processor = FAMILIES["gemma3"]().processor
    defaults = (256, 4, 1.2)  # least crop size, most crops, least aspect ratio
    rng = np.random.default_rng(0)
    cropped = 0
    for _ in range(40):
        height, width = (int(n) for n in rng.integers(200, 1200, 2))
        y, x = np.mgrid[:height, :width].astype(np.int16)
        truth = processor.image_processor.pan_and_scan(np.stack([y, x]), *defaults)
        boxes = [(c[1].min(), c[0].min(), c[1].max() + 1, c[0].max() + 1) for c in truth]
        assert [canvas.region for canvas in pan_and_scan((height, width), processor)] == boxes
        cropped += len(boxes) > 0
    assert cropped > 5


def test_tile_arrangement_is_the_processors_own() -> None:
    processor = FAMILIES["internvl"]().processor
    rng = np.random.default_rng(0)
    for _ in range(300):
        height, width = (int(n) for n in rng.integers(1, 900, 2))
        rows, cols = tile_arrangement((height, width), processor)
        tiles = rows * cols + (rows * cols > 1)
        count = processor.image_processor.get_number_of_image_patches
        assert tiles == count(height, width, {"crop_to_patches": True})


# --- registry ----------------------------------------------------------------------------------------------


@pytest.fixture
def empty_slate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_adapters", dict(adapters.families()))


class OutsideAdapter(Adapter):
    model_types = ("outside_vlm",)


def test_the_built_in_families() -> None:
    served = adapters.families()
    assert set(FAMILIES) <= set(served)
    assert all(issubclass(cls, Adapter) for cls in served.values())
    for name, cls in served.items():
        assert name in cls.model_types


@pytest.mark.usefixtures("empty_slate")
def test_registering_an_adapter() -> None:
    model = PlainModel("blocks")
    model.config = type("Config", (), {"model_type": "outside_vlm"})()
    assert not any(cls.matches(model) for cls in adapters.families().values())
    assert adapters.register(OutsideAdapter) is OutsideAdapter
    adapters.register(OutsideAdapter)  # the same class again is no conflict
    assert isinstance(adapters.find(model), OutsideAdapter)
    assert OutsideAdapter.matches(model)


@pytest.mark.usefixtures("empty_slate")
def test_a_second_adapter_for_a_model_type_is_refused() -> None:
    class MyLlava(Adapter):
        model_types = ("fresh_type", "llava")

    with pytest.raises(InvalidInputError, match=r"LlavaAdapter already serves model type 'llava'.*adapter="):
        adapters.register(MyLlava)
    assert "fresh_type" not in adapters.families(), "a refused adapter must leave nothing behind"


@pytest.mark.parametrize("wrong", [Adapter, int, "llava"])
def test_only_adapters_with_model_types_can_be_registered(wrong: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"model_types is empty|takes a subclass"):
        adapters.register(wrong)


def test_an_unknown_architecture_is_named_with_remedies() -> None:
    model = hf.GPT2LMHeadModel(hf.GPT2Config(n_layer=1, n_embd=8, n_head=2, vocab_size=8))
    with pytest.raises(UnsupportedModelError) as error:
        adapters.find(model)
    for part in ("'gpt2'", "vea doctor --families", "register", "image_positions="):
        assert part in str(error.value)
    assert len(str(error.value)) < 300
    with pytest.raises(UnsupportedModelError, match=r"PlainModel \(it has no config.model_type\)"):
        adapters.find(PlainModel("blocks"))


class ValueHead(nn.Module):
    """As trl's wrappers are: the model under a name, a head beside it."""

    def __init__(self, name: str, model: nn.Module) -> None:
        super().__init__()
        setattr(self, name, model)
        self.v_head = nn.Linear(2, 1)


@pytest.mark.parametrize("name", ["pretrained_model", "module", "model"])
def test_a_wrapper_of_somebodys_own_is_named(name: str) -> None:
    family = FAMILIES["llava"]()
    wrapped = ValueHead(name, family.model)
    for use in (lambda: vea.capture(wrapped), lambda: vea.wrap(wrapped, family.processor)):
        with pytest.raises(
            UnsupportedModelError, match=rf"ValueHead wraps a model that is served: pass \.{name} of it"
        ):
            use()


def test_a_parallel_model_is_asked_as_it_is_alone() -> None:
    family = FAMILIES["llava"]()
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8))
    one = vea.wrap(family.model, family.processor, layers=[1]).ask(image, "what?", max_new_tokens=3)
    other = vea.wrap(nn.DataParallel(family.model), family.processor, layers=[1]).ask(image, "what?", max_new_tokens=3)
    assert one.text == other.text
    assert np.array_equal(one.evidence.scores, other.evidence.scores)


@pytest.mark.usefixtures("empty_slate")
def test_adapters_of_installed_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "outside_package.py").write_text(
        "from vea_sdk.adapters import Adapter\nclass PackagedAdapter(Adapter):\n    model_types = ('packaged_vlm',)\n"
    )
    info = tmp_path / "outside_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[vea_sdk.adapters]\nbroken = outside_package:Missing\ngood = outside_package:PackagedAdapter\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    registry._load_entry_points.cache_clear()
    with pytest.warns(UserWarning, match="broken .*Missing"):
        assert adapters.families()["packaged_vlm"].__name__ == "PackagedAdapter"
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # they are looked for once
        adapters.families()
