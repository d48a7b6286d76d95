"""Where queries and keys become visible: Transformers' attention functions and torch's SDPA.

Both taps exist only while a session is open. Transformers fetches its attention function through
``AttentionInterface.get_interface`` at every call; wrapping what that returns leaves names, masks and the registry
untouched, and covers submodels that fall back to eager. The wrapper is installed once for all open sessions (counted)
and is inert in every context that opened none.
"""

from __future__ import annotations

import inspect
import sys
import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vea_sdk.adapters import AttentionCall
from vea_sdk.capture.call import from_interface, from_sdpa


class Observer(Protocol):
    """What a session offers to the taps."""

    def watches(self, module: nn.Module) -> bool: ...
    def read_call(self, module: nn.Module, call: AttentionCall, source: str) -> None: ...
    def read_weights(self, module: nn.Module, weights: Tensor, key: Tensor) -> None: ...


ACTIVE: ContextVar[tuple[Observer, ...]] = ContextVar("vea_sdk_active_sessions", default=())
"""The sessions open in this thread (or task), outermost first."""

_lock = threading.Lock()
_open_sessions = 0
_original: Callable[..., Any] | None = None


def acquire() -> None:
    """Wrap ``get_interface`` for the first open session. Does nothing when Transformers is not loaded."""
    global _open_sessions, _original
    with _lock:
        _open_sessions += 1
        modeling = sys.modules.get("transformers.modeling_utils")
        if _original is not None or modeling is None:
            return
        original = modeling.AttentionInterface.get_interface

        def get_interface(self: Any, attn_implementation: str, default: Callable[..., Any]) -> Callable[..., Any]:
            function = original(self, attn_implementation, default)
            return _observed(function, attn_implementation) if ACTIVE.get() else function

        _original = original
        modeling.AttentionInterface.get_interface = get_interface


def release() -> None:
    """Give ``get_interface`` back when the last session closes."""
    global _open_sessions, _original
    with _lock:
        _open_sessions -= 1
        if _open_sessions == 0 and _original is not None:
            sys.modules["transformers.modeling_utils"].AttentionInterface.get_interface = _original
            _original = None


def _observed(function: Callable[..., Any], implementation: str | None) -> Callable[..., Any]:
    def attention(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Any = None,
        **options: Any,
    ) -> Any:
        observers = [observer for observer in ACTIVE.get() if observer.watches(module)]
        if not observers:
            return function(module, query, key, value, attention_mask, **options)
        if implementation != "eager":
            call = from_interface(module, query, key, attention_mask, options, implementation)
            for observer in observers:
                observer.read_call(module, call, "interface")
            return function(module, query, key, value, attention_mask, **options)
        # Eager made the weights anyway: they are read as they are, so both agree to the last bit.
        output, weights = function(module, query, key, value, attention_mask, **options)
        for observer in observers:
            if weights is None:
                call = from_interface(module, query, key, attention_mask, options, implementation)
                observer.read_call(module, call, "interface")
            else:
                observer.read_weights(module, weights, key)
        return output, weights

    return attention


def uses_interface(module: nn.Module) -> bool:
    """Whether the module's own forward fetches its attention through Transformers' interface."""
    code = getattr(inspect.unwrap(type(module).forward), "__code__", None)
    return code is not None and "get_interface" in code.co_names


class SdpaTap(TorchFunctionMode):
    """Reads a direct ``scaled_dot_product_attention`` of one module, between its pre- and post-hook."""

    def __init__(self, observer: Observer, module: nn.Module) -> None:
        super().__init__()
        self._observer = observer
        self._module = module

    def open(self) -> None:
        self.__enter__()  # type: ignore[no-untyped-call]

    def close(self) -> None:
        self.__exit__(None, None, None)  # type: ignore[no-untyped-call]

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is torch.nn.functional.scaled_dot_product_attention:
            self._observer.read_call(self._module, from_sdpa(*args, **(kwargs or {})), "sdpa")
        return func(*args, **(kwargs or {}))
