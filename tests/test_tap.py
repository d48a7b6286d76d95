"""The compiled tap hands on the calls of unwatched modules, and does in all else what ``functools.partial`` does."""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from contextvars import ContextVar
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from families import FAMILIES
from test_capture import generate, single

import vea_sdk as vea
from vea_sdk import _native

native = _native.extension()
pytestmark = pytest.mark.skipif(native is None, reason="needs the compiled extension")


def attend(*arguments: Any, **options: Any) -> Any:
    return "attend", arguments, options


def function(*arguments: Any, **options: Any) -> Any:
    return "function", arguments, options


def tap(active: Any, called: Any = function) -> Any:
    return native.tap(active, attend, called, "sdpa")


def watching(*modules: object) -> Any:
    active: ContextVar[Any] = ContextVar("active", default=())
    active.set(tuple(SimpleNamespace(modules=[module]) for module in modules))
    return active


def test_a_watched_module_goes_to_attend() -> None:
    active = watching("a", "b")
    for arguments, options in (
        [("a", 1), {"scaling": 2}],
        [("b",), {}],
        [(), {"module": "a"}],  # by name: attend() knows what that is
        [("a", *range(30)), {f"o{i}": i for i in range(30)}],
    ):
        assert tap(active)(*arguments, **options) == partial(attend, function, "sdpa")(*arguments, **options)


def test_an_unwatched_module_goes_to_the_function() -> None:
    for active in (watching("a", "b"), watching()):
        assert tap(active)("c", 1, scaling=2) == function("c", 1, scaling=2)


def test_observers_are_those_of_the_running_context() -> None:
    active, found = watching("a"), []
    thread = threading.Thread(target=lambda: found.append(tap(active)("a")))
    thread.start()
    thread.join()
    assert found == [function("a")]


def test_errors_come_through() -> None:
    def fails(*arguments: Any) -> Any:
        raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        tap(watching(), fails)("a")
    with pytest.raises(ValueError, match="inside"):
        native.tap(watching("a"), fails, function, "sdpa")("a")
    blind: ContextVar[Any] = ContextVar("blind", default=(object(),))
    with pytest.raises(AttributeError, match="modules"):
        tap(blind)("a")
    for wrong in ((), (watching(), attend, function), (None, attend, function, "sdpa")):
        with pytest.raises(TypeError, match="active"):
            native.tap(*wrong)
    with pytest.raises(TypeError, match="Tap"):
        type(tap(watching()))()


def test_nothing_is_kept() -> None:
    class Callee:
        def __call__(self, *arguments: Any, **options: Any) -> None: ...

    callee, active, module = Callee(), watching("a"), object()
    gone = weakref.ref(callee)
    counts = [sys.getrefcount(one) for one in (active, attend, module)]
    for _ in range(100):
        made = native.tap(active, attend, callee, "sdpa")
        made(module, scaling=1)
        made("a", module)
    assert sys.getrefcount(type(made)) < 100
    del made, callee
    gc.collect()
    assert gone() is None
    assert [sys.getrefcount(one) for one in (active, attend, module)] == counts


def test_rows_are_the_same_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    family = FAMILIES["llava"]()
    inputs = single(family)

    def rows() -> torch.Tensor:
        with vea.capture(family.model, layers=[1, 2], queries="all") as session:
            generate(family.model, inputs)
        return session.attention

    with_it = rows()
    monkeypatch.setattr(_native, "extension", lambda: None)
    assert (rows() - with_it).abs().max() <= 2e-6  # plain torch computes them
