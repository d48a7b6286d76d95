"""A pre-hook and a hook of one module, put on and taken off together."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle


class Hook:
    """What is done before the calls of one module and, once that is asked for, after them; ``enter`` is told the names
    of its arguments first."""

    def __init__(self, module: nn.Module, enter: Callable[..., None], leave: Callable[..., None] | None = None) -> None:
        self.module = module
        self._names = argument_names(module)
        self._do_enter = enter
        self._leave = leave
        self.sees_end = False
        self._handles: list[RemovableHandle] = []

    def _enter(self, module: nn.Module, args: Any, kwargs: dict[str, Any] | None = None) -> None:
        # None: another thread runs the module in the moment between putting on the hook and saying what it takes.
        if kwargs is not None:
            self._do_enter(self._names, module, args, kwargs)

    def attach(self) -> None:
        """Does nothing where it is attached."""
        if not self._handles:
            enter = OfOneModule(self.module, self._enter)
            self._handles.append(self.module.register_forward_pre_hook(enter, with_kwargs=True))
            if self.sees_end:
                self._attach_end()

    def detach(self) -> None:
        while self._handles:
            self._handles.pop().remove()

    def see_end(self) -> None:
        """Call ``leave`` from now on, also for the call that runs. To a step of decoding a hook is a cost."""
        self.sees_end = True
        if len(self._handles) == 1:
            self._attach_end()

    def _attach_end(self) -> None:
        assert self._leave is not None
        leave = OfOneModule(self.module, self._leave)
        self._handles.append(self.module.register_forward_hook(leave, always_call=True))


class OfOneModule:
    """What torch calls as a hook. A copy of the module shares it, and is told apart: nobody watches the copy. A pickled
    module leaves it behind."""

    def __init__(self, module: nn.Module, call: Callable[..., None]) -> None:
        self._module = weakref.ref(module)
        self._call = call

    def __call__(self, module: nn.Module, *arguments: Any) -> None:
        if module is self._module():
            self._call(module, *arguments)

    def __deepcopy__(self, memo: dict[int, Any]) -> OfOneModule:
        return self

    def __reduce__(self) -> Any:
        return no_hook, ()


def no_hook() -> Callable[..., None]:
    """What a pickled hook becomes."""
    return _nothing


def _nothing(*arguments: Any) -> None:
    pass


def argument_names(module: nn.Module) -> tuple[str, ...]:
    """Of its ``forward``, in order."""
    return tuple(inspect.signature(module.forward).parameters)


def named(names: tuple[str, ...], args: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call by name."""
    return kwargs if not args else {**dict(zip(names, args, strict=False)), **kwargs}
