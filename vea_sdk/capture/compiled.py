"""Passes inside ``torch.compile``: buffers bound to the attention modules instead of state of the running thread.

A traced function can read neither a context variable nor a count of steps. So before a compiled pass, outside of its
graph, every watched module gets a :class:`Tap`: tensors that say what to read, and tensors for the row and its figures,
the same ones as long as the shapes stay. The graph fills them, and after the pass they are copied to the recorder.
Nothing in here belongs to a thread: a compiled model under capture is to be run by one thread at a time.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from vea_sdk.adapters import AttentionCall
from vea_sdk.capture.call import row_in_graph
from vea_sdk.capture.hooks import Hook
from vea_sdk.capture.runs import Runs
from vea_sdk.errors import CaptureError

if TYPE_CHECKING:
    from vea_sdk.capture.prompt import Step
    from vea_sdk.capture.recorder import Recorder

_NAME = "_vea_sdk_taps"
_lock = threading.Lock()  # sessions of several threads may come and go on one model


class Tap:
    """What a compiled attention module is to read in the next pass, and what it has read."""

    def __init__(self, index: Tensor, places_stay: bool, per_head: bool) -> None:
        batch, tokens = index.shape
        self.index = torch.empty_like(index)  # [B, M] key positions in the prompt, -1 for none
        self.behind = index.new_empty(batch)  # [B] tokens of the pass that follow the one whose row is read
        self.places = torch.empty_like(index)  # the same in this pass: a sliding cache has dropped its first keys
        self.seen = index.new_empty(1)  # tokens fed so far, this pass included
        self.row = torch.empty(batch, tokens, dtype=torch.float32, device=index.device)
        self.figures = torch.empty(batch, 4, dtype=torch.float32, device=index.device)
        self.heads: Tensor | None = None  # [B, H, M] of the pass, where heads are kept
        self.reads = 0  # how often the pass has filled them
        self._places_stay = places_stay
        self._per_head = per_head
        for tensor in (self.index, self.places, self.behind, self.seen, self.row, self.figures):
            torch._dynamo.mark_static_address(tensor, guard=False)  # a CUDA graph may write to it where it is

    def fits(self, index: Tensor) -> bool:
        return self.index.shape == index.shape and self.index.device == index.device

    def prepare(self, index: Tensor, step: Step) -> None:
        """Say what to read in the next pass."""
        self.index.copy_(index)
        self.seen.fill_(step.seen)
        if step.query_index is None:
            self.behind.zero_()
        else:
            self.behind.copy_(step.length - 1 - step.query_index)
        self.heads = None
        self.reads = 0

    def read(self, call: AttentionCall) -> None:
        """Compute one row, inside the graph."""
        queries, keys = call.query.shape[-2], call.key.shape[-2]
        index = self.index
        if not self._places_stay:
            index = torch.where(index < 0, -1, index - (self.seen - keys).clamp(min=0)).clamp(min=-1)
        row = queries - 1 - self.behind
        stop = row + 1 if call.causal and call.mask is None else None
        scores = row_in_graph(call, index, row, stop, self.figures, self._per_head)
        self.places.copy_(index)
        if self._per_head:
            self.heads = scores
            scores = scores.mean(1)
        self.row.copy_(scores)
        self.reads += 1


class StandingTap(Protocol):
    """A tap that is there for good: it finds out on the device whether there is anything to read, raises nothing,
    and reads the weights of an eager attention, too."""

    def read(self, call: AttentionCall) -> None: ...


class Taps:
    """The taps of one module, of all sessions that watch it."""

    def __init__(self) -> None:
        self.sessions = 0
        self.told = 0  # sessions that know of the running pass
        self.open: tuple[Tap, ...] = ()
        self.standing: tuple[StandingTap, ...] = ()  # read in every pass, sessions or not
        self.marked = False  # whether the module's ``forward`` stands in the module itself

    @property
    def hidden(self) -> bool:
        """Whether a session must look at the running thread itself, which breaks the graph."""
        return self.told < self.sessions

    def __deepcopy__(self, memo: dict[int, Any]) -> Taps:
        """A copy of the module is watched by nobody."""
        copied = Taps()
        copied.marked = self.marked
        return copied

    def __reduce__(self) -> Any:
        return Taps, ()


def taps_of(module: nn.Module) -> Taps | None:
    """The module's taps, None where no session watches it."""
    return getattr(module, _NAME, None)


class CompiledPasses:
    """One session's part in the compiled passes of a model."""

    def __init__(self, runs: Runs, recorder: Recorder, hooks: Collection[Hook]) -> None:
        self._runs = runs
        self._recorder = recorder
        self._hooks = hooks
        self._taps: dict[nn.Module, Tap] = {}  # kept from pass to pass
        self._watched: list[nn.Module] = []
        self._reads = False  # whether the running pass is read
        self._running = False

    def open(self) -> None:
        with _lock:
            for module in self._runs.modules:
                _made(module).sessions += 1
                self._watched.append(module)

    def close(self) -> None:
        self.end(finished=False)
        with _lock:
            while self._watched:
                module = self._watched.pop()
                taps = _known(module)
                taps.sessions -= 1
                _tidy(module, taps)

    def begin(self, step: Step | None, outside: nn.Module | None) -> None:
        """Before the graph: what every watched module is to read, nothing without a ``step``.

        Hooks inside of the graph would have nothing to do, and each session's new ones would make a new graph, so they
        are taken off for the pass; those of the module ``outside`` run before and after it.
        """
        self._running, self._reads = True, step is not None
        for hook in self._hooks:
            if hook.module is not outside:
                hook.detach()
        for module in self._runs.modules:
            taps = _known(module)
            taps.told += 1
            if taps.told == 1:
                _mark(module, taps)
            if step is not None:
                taps.open += (self._tap(module, step),)

    def end(self, finished: bool) -> None:
        """After the graph: take the rows that it has left, if it came to its end. Does nothing where none ran.

        Raises:
            CaptureError: when a layer was not read.
        """
        if not self._running:
            return
        self._running = False
        for module in self._runs.modules:
            taps = _known(module)
            taps.told -= 1
            if taps.told == 0 and not taps.standing:
                _unmark(module, taps)
            taps.open = tuple(tap for tap in taps.open if tap is not self._taps.get(module))
        for hook in self._hooks:
            hook.attach()
        if finished and self._reads:
            self._take()

    def _take(self) -> None:
        unread = [self._runs.first(module) for module in self._runs.modules if not self._taps[module].reads]
        if unread:
            raise hidden(unread)
        for module in self._runs.modules:
            tap = self._taps[module]
            self._runs.check(module, tap.reads)
            self._recorder.store(self._runs.first(module), tap.row, tap.figures, tap.places, tap.heads)
            tap.heads = None  # a graph may write its next pass over it

    def _tap(self, module: nn.Module, step: Step) -> Tap:
        index = self._recorder.index_on(device_of(module))
        tap = self._taps.get(module)
        if tap is None or not tap.fits(index):
            tap = self._taps[module] = Tap(index, step.cross or step.prompt_stays, self._recorder.per_head)
        tap.prepare(index, step)
        return tap


def is_exporting() -> bool:
    """Whether a model is traced to be exported. Tracing must call this (see :func:`stand`): torch 2.11, for one, does
    not call what it asks but takes it for True, in ``torch.compile`` as well (pytorch/pytorch#176347)."""
    return torch.compiler.is_exporting()


def stand(module: nn.Module, tap: StandingTap) -> None:
    """Have the module read by ``tap`` in every compiled pass from now on."""
    # A decorator, which at import would load the compiler.
    torch.compiler.assume_constant_result(is_exporting)  # type: ignore[no-untyped-call]
    with _lock:
        taps = _made(module)
        taps.standing = (*taps.standing, tap)
        _mark(module, taps)


def withdraw(module: nn.Module, tap: StandingTap) -> None:
    with _lock:
        taps = _known(module)
        taps.standing = tuple(one for one in taps.standing if one is not tap)
        if not taps.standing and taps.told == 0:
            _unmark(module, taps)
        _tidy(module, taps)


def hidden(layers: Sequence[int]) -> CaptureError:
    """What to say of layers that a compiled pass has not read."""
    return CaptureError(
        f"the attention of layers {list(layers)} stayed hidden in a compiled pass. Either they do not fetch it "
        "through Transformers' attention functions; then capture without torch.compile. Or they were compiled "
        "before the session was opened, in a form that it cannot mark; then call torch.compiler.reset() first."
    )


def _made(module: nn.Module) -> Taps:
    taps = taps_of(module)
    if taps is None:
        taps = Taps()
        setattr(module, _NAME, taps)
    return taps


def _tidy(module: nn.Module, taps: Taps) -> None:
    """Leave nothing behind on a module that nobody reads any more."""
    if not taps.sessions and not taps.standing:
        delattr(module, _NAME)


def _known(module: nn.Module) -> Taps:
    taps = taps_of(module)
    assert taps is not None
    return taps


def _mark(module: nn.Module, taps: Taps) -> None:
    """A graph made before knows nothing of taps, and torch does not look for them. But it does look whether ``forward``
    is the class's own, so that becomes an attribute of the module for the pass, and a second graph is made."""
    if "forward" not in vars(module):
        module.forward = module.forward
        taps.marked = True


def _unmark(module: nn.Module, taps: Taps) -> None:
    if taps.marked:
        del module.forward
        taps.marked = False


def is_compiled(module: nn.Module) -> bool:
    """Whether a module's ``forward`` was replaced by ``torch.compile`` of it, so that hooks of the module itself run
    outside of the graph."""
    forward = vars(module).get("forward", type(module).forward)  # not bound: that makes an error of what is missing
    return hasattr(forward, "_torchdynamo_orig_callable")


def device_of(module: nn.Module) -> torch.device:
    """Where a module is, and its attention with it."""
    return next((p.device for p in module.parameters() if p.device.type != "meta"), torch.device("cpu"))
