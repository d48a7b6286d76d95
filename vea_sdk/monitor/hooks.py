"""Permanent hooks on a model. Those of requests that are not sampled return at once.

They are put on once and never while requests are answered: torch calls a hook that comes or goes during a pass with
the wrong arguments.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from vea_sdk.adapters import Adapter
from vea_sdk.capture import interception
from vea_sdk.capture.compiled import is_compiled
from vea_sdk.capture.hooks import OfOneModule, argument_names, named
from vea_sdk.capture.prompt import cache_in, fed_ids
from vea_sdk.capture.watch import StopForward, around
from vea_sdk.monitor.boards import Boards
from vea_sdk.monitor.generation import Generation
from vea_sdk.monitor.lookup import IGNORED, Begin, End, Lookup

_log = logging.getLogger("vea_sdk.monitor")
_ANNOUNCED = -1  # depth of a pass that generate() compiles


class _Here(threading.local):
    """What the running thread is in the middle of."""

    depth: int | None = None  # of the module that was called from outside; None between passes
    generation: Generation = IGNORED  # IGNORED where the pass is not followed
    encoder_ids: Tensor | None = None
    announced: Generation | None = None  # of the compiled pass of generate() that runs, where it is followed
    graph: bool = False  # whether the pass runs in a graph, at least in part


class Hook(OfOneModule):
    """A hook that no request fails by."""

    def __call__(self, module: nn.Module, *arguments: Any) -> None:
        if torch.compiler.is_compiling():
            return
        try:
            super().__call__(module, *arguments)
        except Exception:
            _log.exception("a request could not be watched; it goes on")


class Hooks:
    """Finds the generation of each pass (see :class:`Lookup`) and tells its follower, if it has one, of its parts."""

    def __init__(
        self, adapter: Adapter, layers: tuple[int, ...], begin: Begin, end: End, boards: Boards | None = None
    ) -> None:
        self._lookup, self._end = Lookup(begin, end), end
        self._boards = boards
        self._here = _Here()
        self._handles: list[Any] = []
        try:
            self._install(adapter, layers)
        except BaseException:
            self.remove()
            raise

    def _install(self, adapter: Adapter, layers: tuple[int, ...]) -> None:
        decoder = adapter.decoder
        modules = [*around(decoder, adapter.model), *([] if decoder is adapter.model else [decoder])]
        self._path = modules
        self._decoder = None if decoder is adapter.model else decoder
        for depth, module in enumerate(modules):
            self._add(module, partial(self._enter, depth), partial(self._leave, depth))
        if adapter.encoder_embedding is not None:
            self._add(adapter.encoder_embedding, self._enter_encoder, None)
        attention = adapter.modules_by_layer()
        for layer in layers:
            if not interception.uses_interface(attention[layer]):
                self._add(attention[layer], self._enter_attention, self._leave_attention)
        if self._boards is not None:
            interception.STANDING.append(self)

    def remove(self) -> None:
        if self in interception.STANDING:
            interception.STANDING.remove(self)
        while self._handles:
            self._handles.pop().remove()

    @property
    def encoder_ids(self) -> Tensor | None:
        """What this thread's encoder was fed last, in an encoder-decoder."""
        return self._here.encoder_ids

    def _add(self, module: nn.Module, enter: Callable[..., None], leave: Callable[..., None] | None) -> None:
        names = argument_names(module)

        def before(module: nn.Module, args: Any, kwargs: dict[str, Any] | None = None) -> None:
            if kwargs is not None:  # else the hook was taken off during this very pass
                enter(names, module, args, kwargs)

        self._put_on(module, "pre_hooks", "with_kwargs", Hook(module, before))
        if leave is not None:
            self._put_on(module, "hooks", "always_called", Hook(module, leave))

    def _put_on(self, module: nn.Module, kind: str, manner: str, hook: Hook) -> None:
        """What ``register_forward_hook(hook, always_call=True)`` does, with two differences: the key is the same each
        time a monitor comes, since graphs that the compiler made with the hook in place are good for this key only;
        and the manner is there before the hook, which another thread may call at once."""
        hooks, manners = getattr(module, f"_forward_{kind}"), getattr(module, f"_forward_{kind}_{manner}")
        handle: Any = RemovableHandle(hooks, extra_dict=[manners])
        handle.id = next(key for key in map("vea_sdk.monitor.{}".format, count()) if key not in hooks)
        manners[handle.id] = True
        hooks[handle.id] = hook
        self._handles.append(handle)

    def _enter(self, depth: int, names: tuple[str, ...], module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        here = self._here
        if here.depth is None or here.depth >= depth:
            if here.generation.follower is not None:  # a pass that was torn down, by Ctrl-C for one
                here.generation.leave_pass(finished=False)
            here.depth, here.generation, here.graph = depth, IGNORED, False
            if self._boards is not None:
                self._boards.hide()
            if _capturing():  # what a CUDA graph repeats would write into the slots of later requests
                if self._boards is not None:
                    self._boards.show()
                    self._lookup.asks = True
                return
            generation = self._lookup.running() or self._lookup.find(named(names, args, kwargs))
            if generation.follower is None:
                here.generation = generation
            else:
                fed = named(names, args, kwargs)
                if not _owned(fed):
                    return
                if generation.enter_pass(fed_ids(fed)):
                    here.generation = generation
            if self._boards is not None and any(is_compiled(part) for part in self._path):
                here.graph = True
            if module is not self._decoder:
                self._tell("model", names, module, args, kwargs)
        if module is self._decoder:
            self._tell("decoder", names, module, args, kwargs)

    def _tell(self, part: str, names: tuple[str, ...], module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        here = self._here
        follower = here.generation.follower
        if follower is not None:
            follower.enter(part, names, module, args, kwargs)
        if here.graph and (follower is None or follower.problem is not None):
            assert self._boards is not None
            self._boards.begin(None)

    def _leave(self, depth: int, module: nn.Module, args: Any, output: Any) -> None:
        here = self._here
        if here.depth != depth:
            return
        generation, here.depth, here.generation = here.generation, None, IGNORED
        if generation.follower is not None:
            generation.leave_pass(output is not None, output)
        if self._boards is not None:
            self._boards.hide()
            self._boards.end()
        if generation is IGNORED:
            return
        if output is not None:
            self._lookup.passed(generation, output)
        elif not isinstance(sys.exception(), StopForward):
            self._end(generation, "failed")

    # -- passes that generate() compiles, whose hooks do nothing inside of the graph

    def begin_compiled(self, model: nn.Module, kwargs: dict[str, Any]) -> bool:
        if self._boards is None or not any(model is part for part in self._path):
            return False
        here = self._here
        here.depth, here.generation, here.graph, here.announced = _ANNOUNCED, IGNORED, False, None
        try:
            generation = self._lookup.running()
            follower = None if generation is None else generation.follower
            followed = generation is not None and follower is not None and _owned(kwargs)
            if generation is not None and followed and generation.enter_pass(fed_ids(kwargs)):
                here.announced = generation
            if follower is None or here.announced is None or not follower.begin_compiled(model, kwargs):
                self._boards.begin(None)
        except Exception:
            _log.exception("a request could not be watched; it goes on")
        return True

    def end_compiled(self, finished: bool) -> None:
        here = self._here
        generation, here.announced, here.depth = here.announced, None, None
        assert self._boards is not None
        try:
            if generation is not None:
                generation.leave_pass(finished)
        except Exception:
            _log.exception("a request could not be watched; it goes on")
        finally:
            self._boards.end()

    def _enter_encoder(self, names: tuple[str, ...], module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        self._here.encoder_ids = next(iter(named(names, args, kwargs).values()))

    def _enter_attention(self, names: tuple[str, ...], module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        if (follower := self._here.generation.follower) is not None:
            follower.enter("attention", names, module, args, kwargs)

    def _leave_attention(self, module: nn.Module, args: Any, output: Any) -> None:
        if (follower := self._here.generation.follower) is not None:
            follower.leave_attention(module, args, output)


def _owned(fed: Mapping[str, Any]) -> bool:
    """Whether a pass with these named arguments is one of the running ``generate()``, if there is one, and not of what
    else runs the model meanwhile."""
    call = interception.CALL.get()
    return call is None or call.owns(cache_in(fed), fed_ids(fed))


@contextmanager
def no_graph_is_made(timeout: float = -1) -> Iterator[bool]:
    """Hold the compiler up, which stumbles over hooks that come or go while it looks at their module; False where it
    is in the middle of something for longer than ``timeout`` seconds."""
    frames = sys.modules.get("torch._dynamo.convert_frame")
    lock = None if frames is None else frames.compile_lock
    if lock is None or lock.acquire(timeout=timeout):
        try:
            yield True
        finally:
            if lock is not None:
                lock.release()
    else:
        yield False


def _capturing() -> bool:
    """Whether a CUDA graph is being captured; asked without starting CUDA."""
    started: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return started and torch.cuda.is_current_stream_capturing()
