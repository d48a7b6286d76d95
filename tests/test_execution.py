"""Capture where a model is not simply run as loaded: half precision, offloaded, sharded, quantised, wrapped by PEFT."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from families import FAMILIES
from test_capture import NEW_TOKENS, TOLERANCE, eager_rows, generate, padded
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText

import vea_sdk as vea
from tests.conformance.oracle import float64_rows
from vea_sdk import adapters

FLOAT64_TOLERANCE = 2e-6


def exact_rows_agree(model: nn.Module, inputs: Any) -> Tensor:
    """Capture everything, and compare with a float64 softmax of the q and k that SDPA received."""
    modules = adapters.find(model).attention_modules()
    with float64_rows(modules) as exact, vea.capture(model, layers="all", queries="all") as session:
        generate(model, inputs)
    keys = session.image_index
    truth = torch.stack([torch.stack([row.gather(1, keys) for row in rows], 1) for rows in exact.values()])
    assert session.layers == tuple(modules)
    assert session.attention.shape == truth.shape == (len(modules), keys.shape[0], NEW_TOKENS, keys.shape[1])
    assert (truth.amax((1, 2, 3)) > 1.2 * truth.mean((1, 2, 3))).all()  # something was compared
    assert (session.attention - truth).abs().max() <= FLOAT64_TOLERANCE
    return session.attention


# -- half precision


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["llava", "qwen2_vl"])
def test_half_precision(name: str, dtype: torch.dtype) -> None:
    family = FAMILIES[name]()
    model = copy.deepcopy(family.model).to(dtype)
    inputs = padded(family)
    inputs["pixel_values"] = inputs["pixel_values"].to(dtype)
    rows = exact_rows_agree(model, inputs)
    assert rows.dtype == torch.float32


# -- weights elsewhere


@pytest.mark.parametrize("place", ["cpu", "disk", "device_map"])
def test_offloaded_weights(place: str, tmp_path: Path) -> None:
    accelerate = pytest.importorskip("accelerate")
    family = FAMILIES["llava"]()
    inputs = padded(family)
    expected, _ = eager_rows(family, inputs)
    if place == "device_map":
        family.model.save_pretrained(tmp_path / "checkpoint")
        outside = ("model.vision_tower", "model.multi_modal_projector", "lm_head")
        parts = [f"model.language_model.{part}" for part in ("embed_tokens", "norm", "rotary_emb")]
        places = dict.fromkeys((*outside, *parts), "cpu")
        places |= {f"model.language_model.layers.{layer}": ("cpu", "disk")[layer // 2] for layer in range(4)}
        model = AutoModelForImageTextToText.from_pretrained(
            tmp_path / "checkpoint", device_map=places, offload_folder=tmp_path / "disk", dtype=torch.float32
        ).eval()
    else:
        model = copy.deepcopy(family.model)
        if place == "disk":
            accelerate.disk_offload(model, str(tmp_path), execution_device="cpu")
        else:
            accelerate.cpu_offload(model, execution_device="cpu")
    assert any(parameter.is_meta for parameter in model.get_decoder().layers[-1].parameters())
    with vea.capture(model, layers="all", queries="all") as session:
        generate(model, inputs)
    assert (session.attention - expected).abs().max() <= TOLERANCE


# -- heads elsewhere


def test_tensor_parallel_rows_are_averaged_over_all_heads(tmp_path: Path) -> None:
    pytest.importorskip("transformers.distributed", reason="this Transformers cannot shard a model")
    import tensor_parallel_worker

    family = FAMILIES["llava"]()
    inputs = padded(family)
    family.model.save_pretrained(tmp_path)
    torch.save(dict(inputs), tmp_path / "inputs.pt")
    worker = Path(__file__).with_name("tensor_parallel_worker.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", worker, tmp_path]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(vea.__file__).parent.parent)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    alone = tensor_parallel_worker.run(family.model, inputs)
    config = family.model.config.get_text_config()
    for rank in range(2):
        found = torch.load(tmp_path / f"rows{rank}.pt", weights_only=True)
        assert found.pop("query_width") == config.num_attention_heads * config.head_dim // 2  # it holds half of them
        for name, rows in found.items():
            if name == "topk":
                assert torch.equal(rows, alone[name])
            else:
                torch.testing.assert_close(rows, alone[name], atol=TOLERANCE, rtol=2e-5, msg=name)


# -- weights of another kind


def test_weights_quantised_by_torchao() -> None:
    quantization = pytest.importorskip("torchao.quantization", reason="torchao is not installed")
    family = FAMILIES["llava"]()
    model = copy.deepcopy(family.model)
    quantization.quantize_(model.get_decoder(), quantization.Int8WeightOnlyConfig())
    assert type(model.get_decoder().layers[0].self_attn.q_proj.weight.data) is not Tensor
    exact_rows_agree(model, padded(family))


@pytest.mark.parametrize("bits", [4, 8])
def test_weights_quantised_by_bitsandbytes(bits: int, tmp_path: Path) -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    from transformers import BitsAndBytesConfig

    family = FAMILIES["llava"]()
    family.model.save_pretrained(tmp_path)
    # Its 4-bit kernel for newer CPUs takes rows of whole blocks of 64 only, which a tiny model has not everywhere.
    short = ["model.vision_tower", "model.multi_modal_projector", "down_proj", "lm_head"]
    settings = BitsAndBytesConfig(load_in_4bit=bits == 4, load_in_8bit=bits == 8, llm_int8_skip_modules=short)
    model = AutoModelForImageTextToText.from_pretrained(
        tmp_path, quantization_config=settings, device_map="cpu", dtype=torch.float32
    ).eval()
    linear = bitsandbytes.nn.Linear4bit if bits == 4 else bitsandbytes.nn.Linear8bitLt
    assert isinstance(model.get_decoder().layers[0].self_attn.q_proj, linear)
    exact_rows_agree(model, padded(family))


def test_a_model_wrapped_by_peft() -> None:
    peft = pytest.importorskip("peft", reason="peft is not installed")
    family = FAMILIES["qwen2_vl"]()
    inputs = padded(family)
    with vea.capture(family.model, layers="all", queries="all") as plain:
        generate(family.model, inputs)
    settings = peft.LoraConfig(r=2, target_modules=["q_proj", "k_proj"], init_lora_weights=False)
    model = peft.get_peft_model(copy.deepcopy(family.model), settings).eval()
    rows = exact_rows_agree(model, inputs)
    assert (rows - plain.attention).abs().max() > 1e-3  # the LoRA was in force
    with model.disable_adapter(), vea.capture(model, layers="all", queries="all") as session:
        generate(model, inputs)
    assert session.layers == plain.layers
    assert (session.attention - plain.attention).abs().max() <= TOLERANCE
