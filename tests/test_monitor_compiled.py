"""A monitor that follows graphs: the records of a model that is not compiled, out of one graph for all requests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from families import FAMILIES, TinyFamily
from monitoring import Kept, close, expected, moves, nothing_is_left  # noqa: F401
from test_capture import eager_rows, padded
from test_compiled import generate, graphs
from torch._dynamo.utils import counters

import vea_sdk as vea
from vea_sdk.monitor.record import Record


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()


def watch(family: TinyFamily, sink: Kept, **options: Any) -> Any:
    return vea.monitor(
        family.model, sinks=[sink], **({"sample_rate": 1.0, "layers": "all", "compiled": True} | options)
    )


def alike(one: Record, other: Record, tolerance: float = 2e-6) -> bool:
    figures = [
        pytest.approx(getattr(b, name), abs=tolerance, rel=tolerance) == getattr(a, name)
        for a, b in zip([one.mean, *one.per_layer], [other.mean, *other.per_layer], strict=True)
        for name in ("image_mass", "entropy", "peak", "rapt_image", "rapt_text")
    ]
    counts = ("generated_tokens", "prompt_tokens", "image_tokens", "finished", "unread", "layers")
    return (
        all(figures)
        and one.trace == pytest.approx(other.trace, abs=tolerance)
        and all(getattr(one, name) == getattr(other, name) for name in counts)
    )


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "gemma3"])
def test_the_records_are_those_without_compilation(name: str, sink: Kept) -> None:
    family = FAMILIES[name]()
    inputs = padded(family)
    rows, sequences = eager_rows(family, inputs)
    plain = Kept()
    with vea.monitor(family.model, sample_rate=1.0, layers="all", sinks=[plain]):
        assert torch.equal(generate(family.model, inputs, compiled=False), sequences)
    with watch(family, sink):
        assert torch.equal(generate(family.model, inputs), sequences)
    assert graphs() > 0
    for i, (record, known) in enumerate(zip(sink.records, plain.records, strict=True)):
        assert alike(record, known)
        assert record.trace == moves(rows[:, i, 1:, : record.image_tokens])
        assert record.generated_tokens == 3
