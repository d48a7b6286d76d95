"""A decoder that runs some of its layers several times in a pass: every run is a layer of its own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

import vea_sdk as vea
from vea_sdk.adapters import Adapter
from vea_sdk.errors import CaptureError

WIDTH, TOKENS, IMAGE = 8, 7, [1, 2, 4]
ORDER = (0, 1, 0, 1, 0, 1, 2)  # blocks 0 and 1 run three times
TOLERANCE = 2e-6  # float32 against float64, through seven layers


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(x)[:, None].chunk(3, dim=-1)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface("sdpa", None)
        output: Tensor = attend(self, query, key, value, None, is_causal=True)[0]
        return output[:, :, 0]


class Looped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.ModuleDict({"attn": Attention()}) for _ in range(3))

    def forward(self, inputs_embeds: Tensor, cache: None = None) -> Tensor:
        x = inputs_embeds
        for block in ORDER:
            x = x + self.layers[block]["attn"](x)
        return x


class LoopedAdapter(Adapter):
    @property
    def n_layers(self) -> int:
        return len(ORDER)

    def attention_modules(self) -> dict[int, nn.Module]:
        blocks = super().attention_modules()
        return {number: blocks[block] for number, block in enumerate(ORDER)}


@pytest.fixture
def model() -> Looped:
    torch.manual_seed(0)
    model = Looped().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.6)
    return model


def float64_rows(model: Looped, x: Tensor) -> Tensor:
    """The last token's attention to the image tokens in each run, [runs, B, M], from the weights alone."""
    x, rows = x.double(), []
    for block in ORDER:
        attention = model.layers[block]["attn"]
        query, key, value = (x @ attention.qkv.weight.double().T + attention.qkv.bias.double()).chunk(3, dim=-1)
        future = torch.ones(TOKENS, TOKENS).triu(1).bool()
        weights = (query @ key.mT / WIDTH**0.5).masked_fill(future, -torch.inf).softmax(-1)
        rows.append(weights[:, -1, IMAGE])
        x = x + weights @ value
    return torch.stack(rows)


@pytest.mark.parametrize(
    ("layers", "compiled"),
    [("all", False), ([3], False), ((0.5, 1.0), False), ([0, 4, 6], True), ([6], True)],
)
def test_every_run_is_a_layer(model: Looped, layers: object, compiled: bool) -> None:
    x = torch.randn(2, TOKENS, WIDTH)
    if compiled:
        model.forward = torch.compile(model.forward, backend="eager")
    with vea.capture(model, layers=layers, image_positions=IMAGE, adapter=LoopedAdapter) as session, torch.no_grad():
        model(x)
        model(x)  # counting begins anew
    truth = float64_rows(model, x)[list(session.layers)]
    assert session.attention.shape == (len(session.layers), 2, 1, len(IMAGE))
    assert (session.attention[:, :, 0] - truth).abs().max() <= TOLERANCE
    assert (truth.diff(dim=0).abs().amax((1, 2)) > 1e-2).all()  # runs of one module differ


@pytest.mark.parametrize(("compiled", "runs"), [(False, 2), (True, 3)])  # compiled, it is seen after the pass
def test_a_loop_that_nobody_described(model: Looped, compiled: bool, runs: int) -> None:
    """Its runs would overwrite each other."""
    x = torch.randn(1, TOKENS, WIDTH)
    if compiled:
        model.forward = torch.compile(model.forward, backend="eager")
    with (
        vea.capture(model, layers=[1], image_positions=IMAGE, adapter=Adapter),
        pytest.raises(
            CaptureError, match=rf"layer 1 \(Attention\) ran {runs} times in one pass.*attention_modules\(\)"
        ),
    ):
        model(x)
    with vea.capture(model, layers=[2], image_positions=IMAGE, adapter=Adapter) as session, torch.no_grad():
        model(x)  # outside of the loop
    assert (session.attention[0, :, 0] - float64_rows(model, x)[-1]).abs().max() <= TOLERANCE
