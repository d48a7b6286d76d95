"""What the tests of the monitor share: a sink that keeps, and figures computed another way."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from families import FAMILIES
from test_capture import generate
from torch import Tensor, nn

from vea_sdk.capture import interception
from vea_sdk.monitor.hooks import Hook
from vea_sdk.monitor.record import Record


class Kept:
    """A sink that keeps what it is given."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.closed = 0

    def write(self, record: Record) -> None:
        self.records.append(record)

    def close(self) -> None:
        self.closed += 1

    def by_name(self) -> dict[str, Record]:
        return {record.request: record for record in self.records}


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """No hook, no wrapper and no thread."""
    yield
    assert interception._open_sessions == 0
    assert not any(thread.name == "vea-monitor" for thread in threading.enumerate())
    for build in FAMILIES.values():
        if build.cache_info().currsize:  # type: ignore[attr-defined]
            assert not hooks_of(build().model)


def hooks_of(model: nn.Module) -> list[Any]:
    hooks = [hook for module in model.modules() for hook in (module._forward_hooks, module._forward_pre_hooks)]
    return [hook for some in hooks for hook in some.values() if isinstance(hook, Hook)]


def said(model: Any, inputs: Any, **options: Any) -> tuple[Tensor, Tensor]:
    """What ``generate()`` answers: the ids and the logits, which a watched request must not change."""
    out = generate(model, inputs, return_dict_in_generate=True, output_logits=True, **options)
    return out.sequences, torch.stack(out.logits)


def same(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> bool:
    """To the last bit."""
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def expected(rows: Tensor, prompt_tokens: int) -> dict[str, Any]:
    """Figures of a prompt's rows [layers, m], whose heads share out exactly 1 over the prompt; in float64."""
    a = rows.double().numpy()
    layers = [_figures(row, prompt_tokens) for row in a]
    mean = a.mean(0)
    cosines = [x @ y / np.linalg.norm(x) / np.linalg.norm(y) for x, y in combinations(a, 2)]
    order = sorted(range(len(mean)), key=lambda i: -mean[i])
    return {
        "per_layer": layers,
        "mean": _figures(mean, prompt_tokens),
        "agreement": float(np.mean(cosines)),
        "order": order,
        "row": mean,
    }


def moves(rows: Tensor) -> Any:
    """First, mean and last image mass of the generated tokens' rows [layers, steps, m], for comparison."""
    mass = rows.double().sum(-1).mean(0).tolist()
    return pytest.approx((mass[0], sum(mass) / len(mass), mass[-1]), abs=1e-5)


def _figures(row: Any, prompt_tokens: int) -> dict[str, float]:
    mass, m = row.sum(), len(row)
    share = row / mass
    return {
        "image_mass": mass,
        "entropy": -(share[share > 0] * np.log(share[share > 0])).sum(),
        "peak": share.max(),
        "rapt_image": mass / m * prompt_tokens,
        "rapt_text": (1 - mass) / (prompt_tokens - m) * prompt_tokens,
    }


def close(found: Any, wanted: dict[str, float], tolerance: float = 2e-5) -> bool:
    return all(abs(getattr(found, name) - value) <= tolerance * max(1.0, abs(value)) for name, value in wanted.items())
