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


def attended(*arguments: Any, **options: Any) -> Any:
    return "attended", arguments, options


def function(*arguments: Any, **options: Any) -> Any:
    return "function", arguments, options


def tap(active: Any, called: Any = function, implementation: str | None = "sdpa") -> Any:
    return native.tapper(active, attend, attended)(called, implementation)


def watching(*modules: object, steps: dict[Any, Any] | None = None) -> Any:
    active: ContextVar[Any] = ContextVar("active", default=())
    active.set(tuple(SimpleNamespace(modules=[module], steps=steps or {}) for module in modules))
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
    assert tap(watching("a", "b"))("c", 1, scaling=2) == function("c", 1, scaling=2)
    assert tap(watching()) is function


def test_observers_are_those_of_the_running_context() -> None:
    active, found = watching("a"), []
    tapped = tap(active)
    thread = threading.Thread(target=lambda: found.append(tapped("a")))
    thread.start()
    thread.join()
    assert found == [function("a")]


class Steps:
    """Steps of a module "m", and what happens to a call of it."""

    def __init__(self, answer: object = True) -> None:
        self.log: list[Any] = []
        self.answer = answer
        self.steps = {"m": (self.reader, 5, 70), "n": (self.reader, 5, 70)}
        self.active = watching("m", steps=self.steps)

    def function(self, *arguments: Any, **options: Any) -> str:
        self.log.append("function")
        return "result"

    def reader(self, *arguments: Any) -> object:
        self.log.append(arguments)
        return self.answer

    def call(self, *arguments: Any, implementation: str | None = "sdpa", **options: Any) -> Any:
        return tap(self.active, self.function, implementation)(*arguments, **options)


PLAIN: dict[str, tuple[tuple[Any, ...], dict[str, Any], str | None]] = {
    "without a mask": (("m", "q", "k", "v"), {"scaling": 0.5}, "sdpa"),
    "with none": (("m", "q", "k", "v", None), {"scaling": 0.5, "dropout": 0.0}, "flash_attention_2"),
    "with none by name": (("m", "q", "k", "v"), {"attention_mask": None, "scaling": 0.5}, None),
    "nothing asked for": (
        ("m", "q", "k", "v", None),
        {"cache": None, "softcap": None, "scaling": 0.5, "s_aux": None, "position_bias": None, "sliding_window": None},
        "sdpa",
    ),
    "a window that the mask holds": (("m", "q", "k", "v", None), {"sliding_window": 9, "scaling": 0.5}, "sdpa"),
    "a name made at run time": (("m", "q", "k", "v", None), {"".join(["scal", "ing"]): 0.5}, "sdpa"),
}


@pytest.mark.parametrize("kind", PLAIN)
def test_a_plain_step_is_read_after_the_function(kind: str) -> None:
    arguments, options, implementation = PLAIN[kind]
    one = Steps()
    assert one.call(*arguments, implementation=implementation, **options) == "result"
    assert one.log == ["function", (5, "q", "k", 0.5, 70)]
    assert list(one.steps) == ["n"]
    assert one.call(*arguments, implementation=implementation, **options)[0] == "attend"  # a second time in the pass


def test_a_scale_may_be_left_out() -> None:
    one = Steps()
    assert one.call("m", "q", "k", "v", None) == "result"
    assert one.log == ["function", (5, "q", "k", None, 70)]


@pytest.mark.parametrize(
    ("arguments", "options", "implementation"),
    [
        (("m", "q", "k", "v", "mask"), {}, "sdpa"),
        (("m", "q", "k", "v"), {"attention_mask": "mask"}, "sdpa"),
        (("m", "q", "k", "v", None), {"sliding_window": 9}, "kernels-community/flash-attn3"),
        (("m", "q", "k", "v", None), {}, "eager"),
        (("m", "q", "k", "v", None, 0.0), {}, "sdpa"),
        (("m", "q", "k"), {"value": "v"}, "sdpa"),
        *((("m", "q", "k", "v", None), {name: 1}, "sdpa") for name in ("cache", "softcap", "s_aux", "position_bias")),
        (("m", "q", "k", "v", None), {"".join(["soft", "cap"]): 1}, "sdpa"),
    ],
)
def test_another_call_goes_to_attend(arguments: Any, options: Any, implementation: Any) -> None:
    one = Steps()
    expected = ("attend", (one.function, implementation, *arguments), options)
    assert one.call(*arguments, implementation=implementation, **options) == expected
    assert one.log == []
    assert list(one.steps) == ["m", "n"]


def test_what_the_reader_does_not_take_goes_on_with_the_result() -> None:
    one = Steps(answer=False)
    answer = one.call("m", "q", "k", "v", None, scaling=0.5)
    assert answer == ("attended", ("result", "sdpa", "m", "q", "k", "v", None), {"scaling": 0.5})
    assert one.log == ["function", (5, "q", "k", 0.5, 70)]
    assert list(one.steps) == ["m", "n"]


def test_two_observers_take_the_long_way() -> None:
    one = Steps()
    one.active.set((*one.active.get(), SimpleNamespace(modules=["m"], steps={})))
    assert one.call("m", "q", "k", "v", None)[0] == "attend"
    assert one.log == []


def test_errors_of_a_step() -> None:
    def fails(*arguments: Any, **options: Any) -> Any:
        raise ValueError("inside")

    one = Steps()
    with pytest.raises(ValueError, match="inside"):
        tap(one.active, fails)("m", "q", "k", "v", None)
    assert one.log == []
    one.steps["m"] = fails, 5, 70
    with pytest.raises(ValueError, match="inside"):
        one.call("m", "q", "k", "v", None)
    assert one.log == ["function"]
    assert list(one.steps) == ["m", "n"]
    one.steps["m"] = one.reader, 5  # type: ignore[assignment]
    with pytest.raises(TypeError):
        one.call("m", "q", "k", "v", None)
    del one.active.get()[0].steps
    with pytest.raises(AttributeError, match="steps"):
        one.call("m", "q", "k", "v", None)


def test_errors_come_through() -> None:
    def fails(*arguments: Any) -> Any:
        raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        tap(watching(), fails)("a")
    with pytest.raises(ValueError, match="inside"):
        native.tapper(watching("a"), fails, attended)(function, "sdpa")("a")
    blind: ContextVar[Any] = ContextVar("blind", default=(object(),))
    with pytest.raises(AttributeError, match="modules"):
        tap(blind)("a")
    for wrong in ((), (watching(), attend), (None, attend, attended)):
        with pytest.raises(TypeError, match="active"):
            native.tapper(*wrong)
    with pytest.raises(TypeError, match="got 1"):
        native.tapper(watching(), attend, attended)(function)
    with pytest.raises(TypeError, match="Tap"):
        type(tap(watching("a")))()


def test_nothing_is_kept() -> None:
    class Callee:
        def __call__(self, *arguments: Any, **options: Any) -> None: ...

    callee, active, module = Callee(), watching("a"), object()
    gone = weakref.ref(callee)
    steps = active.get()[0].steps
    step, options = (lambda *_: module, 0, 0), {"scaling": 1}
    kept = (active, attend, attended, module, steps, step, options)
    counts = [sys.getrefcount(one) for one in kept]
    for _ in range(100):
        made = native.tapper(active, attend, attended)(callee, "sdpa")
        made(module, scaling=1)
        made("a", module)
        steps["a"] = step
        made("a", module, module, module, None, **options)
        assert not steps
    assert sys.getrefcount(type(made)) < 100
    del made, callee
    gc.collect()
    assert gone() is None
    assert [sys.getrefcount(one) for one in kept] == counts


def test_nothing_is_kept_of_a_refused_step() -> None:
    """Neither where the reader takes no row, nor where it, or what goes on with the result, fails."""
    result, nothing = object(), []
    one = Steps()
    arguments = "m", object(), object(), object(), None

    def fails(*arguments: Any, **options: Any) -> Any:
        raise ValueError("inside")

    kept = (result, nothing, one.steps, one.active, *arguments[1:4])
    refusing = one.reader, 5, 70
    one.answer = nothing
    one.steps["m"] = refusing
    taps = {after: native.tapper(one.active, attend, after)(lambda *_: result, "sdpa") for after in (attended, fails)}
    counts = [sys.getrefcount(value) for value in kept]
    for _ in range(100):
        assert taps[attended](*arguments)[0] == "attended"
        one.log.clear()
        with pytest.raises(ValueError, match="inside"):
            taps[fails](*arguments)
        one.log.clear()
        one.steps["m"] = fails, 5, 70
        with pytest.raises(ValueError, match="inside"):
            taps[attended](*arguments)
        one.steps["m"] = refusing
    assert [sys.getrefcount(value) for value in kept] == counts


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
