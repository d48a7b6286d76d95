"""Transformers' methods while sessions come and go, and while others wrap the same ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from families import FAMILIES
from test_capture import TOLERANCE, eager_rows, generate, single
from transformers.generation.utils import GenerationMixin
from transformers.modeling_utils import AttentionInterface, PreTrainedModel

import vea_sdk as vea
from vea_sdk.capture import interception
from vea_sdk.errors import CaptureError

METHODS = [
    (AttentionInterface, "get_interface"),
    (PreTrainedModel, "get_compiled_call"),
    (GenerationMixin, "generate"),
    (GenerationMixin, "_prefill"),
    (GenerationMixin, "_assisted_decoding"),
]
each = pytest.mark.parametrize(("owner", "name"), METHODS, ids=[name for _, name in METHODS])


def methods() -> list[Any]:
    return [getattr(owner, name) for owner, name in METHODS]


@pytest.fixture(autouse=True)
def nothing_is_left() -> Any:
    before = methods()
    yield
    assert methods() == before
    assert interception._open_sessions == 0


def captured() -> torch.Tensor:
    family = FAMILIES["llava"]()
    with vea.capture(family.model, layers="all", queries="all") as session:
        generate(family.model, single(family))
    return session.attention


@pytest.fixture(scope="module")
def rows() -> torch.Tensor:
    family = FAMILIES["llava"]()
    return eager_rows(family, single(family))[0]


@each
def test_a_release_without_one_of_them_is_named(owner: Any, name: str, rows: torch.Tensor) -> None:
    family = FAMILIES["llava"]()
    original = getattr(owner, name)
    delattr(owner, name)
    before = [vars(one).get(other) for one, other in METHODS]
    try:
        for opened in (vea.capture(family.model), vea.capture(family.model)):
            with pytest.raises(CaptureError, match=rf"{transformers.__version__} has no {owner.__name__}\.{name}"):
                opened.__enter__()
        assert [vars(one).get(other) for one, other in METHODS] == before
    finally:
        setattr(owner, name, original)
    assert (captured() - rows).abs().max() <= TOLERANCE


def theirs(original: Callable[..., Any], calls: list[str]) -> Callable[..., Any]:
    """What another package puts on the same method."""

    def method(*args: Any, **kwargs: Any) -> Any:
        calls.append("theirs")
        return original(*args, **kwargs)

    return method


@each
def test_what_others_put_on_stays(owner: Any, name: str, rows: torch.Tensor) -> None:
    """They wrap the method while a session is open; it closes, others come, and at last they take theirs off."""
    original, calls = getattr(owner, name), list[str]()
    family = FAMILIES["llava"]()
    with vea.capture(family.model, layers="all", queries="all") as session:
        saved = getattr(owner, name)
        setattr(owner, name, put_on := theirs(saved, calls))
        generate(family.model, single(family))
    assert (session.attention - rows).abs().max() <= TOLERANCE
    assert getattr(owner, name) is put_on
    for _ in range(2):  # read once each time, though a dead wrapper lies inside of theirs
        assert (captured() - rows).abs().max() <= TOLERANCE
        assert getattr(owner, name) is put_on
    calls.clear()
    generate(family.model, single(family))
    assert calls or name in ("get_compiled_call", "_assisted_decoding")
    setattr(owner, name, saved)  # what they saved: ours, dead
    assert (captured() - rows).abs().max() <= TOLERANCE
    generate(family.model, single(family))
    setattr(owner, name, original)


@each
def test_what_others_replace_stays_theirs(owner: Any, name: str, rows: torch.Tensor) -> None:
    """They put back what was there before us, while we are open."""
    original = getattr(owner, name)
    with vea.capture(FAMILIES["llava"]().model):
        setattr(owner, name, original)
    assert getattr(owner, name) is original
    assert (captured() - rows).abs().max() <= TOLERANCE
