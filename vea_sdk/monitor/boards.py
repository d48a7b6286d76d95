"""Whose figures graphs compute: the host's side of the boards of one monitored model."""

from __future__ import annotations

import threading
from collections.abc import Container, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from vea_sdk.adapters import Adapter, AttentionCall
from vea_sdk.capture.compiled import device_of, stand, withdraw
from vea_sdk.capture.interception import ACTIVE
from vea_sdk.capture.prompt import Step
from vea_sdk.errors import CaptureError
from vea_sdk.monitor.board import Board, BoardTap
from vea_sdk.monitor.generation import Generation, mark
from vea_sdk.monitor.ring import Ring
from vea_sdk.ops.step_reader import StepReader

if TYPE_CHECKING:
    from vea_sdk.monitor.passes import Passes

OVERLAP = "another compiled pass of the model ran at the same time, and a graph cannot tell threads apart."
REPLAYED = "another prompt was fed before this request ended, and a captured CUDA graph cannot tell them apart."

_captured: WeakKeyDictionary[nn.Module, list[Board]] = WeakKeyDictionary()
"""What CUDA graphs write to that were captured by hand: they hold addresses, so it stays as long as the model."""


class Boards:
    """The boards of a model, one per device, and who is on them: one generation at a time, or nobody.

    ``begin`` and ``end`` enclose every compiled pass that the host knows of. As an observer in ``ACTIVE`` this also
    reads the attention of passes of which a CUDA graph is captured, and, for a generation, of those that were to be
    graphs and are run as they are after all.
    """

    def __init__(self, adapter: Adapter, layers: Sequence[int], ring: Ring) -> None:
        self.rows = ring.slots
        self.captured = False  # whether a CUDA graph was captured by hand: nobody announces its passes
        self._model, self._ring = adapter.model, ring
        attention = adapter.modules_by_layer()
        self._modules = {layer: attention[layer] for layer in layers}
        self._boards: dict[torch.device, Board] = {}
        self._closed = False
        self._begin_anew()
        stays = adapter.cross_attention or adapter.prompt_stays
        self._taps = {module: BoardTap(i, stays) for i, module in enumerate(self._modules.values())}
        self.place()
        for module, tap in self._taps.items():
            stand(module, tap)

    def _begin_anew(self) -> None:
        self._lock = threading.Lock()
        self._holder: Generation | None = None
        self._replays = False  # whether graphs that nobody announces continue the holder
        self._running: dict[threading.Thread, tuple[int, Passes | None]] = {}
        self._begun = 0  # compiled passes so far

    def after_fork(self) -> None:
        """In a child: of the devices it can use the CPU alone."""
        self._begin_anew()
        for device, board in self._boards.items():
            if device.type == "cpu":
                board.clear()

    def close(self) -> bool:
        """Take the taps off, for which no compiled pass may run; whether that was so. Graphs that were captured may run
        on, for nobody."""
        with self._lock:
            self._hand_over(None)
            self._closed = True
            me = threading.current_thread()  # is in none, though Ctrl-C may have torn down its last
            if any(thread.is_alive() for thread in self._running if thread is not me):
                return False
            for module, tap in self._taps.items():
                withdraw(module, tap)
            self._boards = {}
            return True

    def place(self) -> None:
        """Give every layer the board of the device that it is on now."""
        with self._lock:
            if self._closed:
                return
            devices = [device_of(module) for module in self._modules.values()]
            last = {device: number for number, device in enumerate(devices)}
            for number, (tap, device) in enumerate(zip(self._taps.values(), devices, strict=True)):
                if device not in self._boards:
                    self._boards[device] = Board(self._ring, len(devices), device)
                tap.board, tap.last = self._boards[device], number == last[device]

    # -- compiled passes

    def begin(self, passes: Passes | None) -> None:
        """A compiled pass begins in this thread, of a generation that is to be read or of another one."""
        me = threading.current_thread()
        with self._lock:
            self._begun += 1
            self._running[me] = self._begun, passes
            if len(self._running) > 1:
                self._notice_overlap()
            for board in self._boards.values():
                board.used()
            if passes is None or passes.step is None:
                self._hand_over(None)
                return
            self._hand_over(passes.generation, again=passes.step.kind == "prompt")
            for board in self._boards.values():
                board.prepare(passes.step, passes.live)

    def end(self) -> None:
        """The compiled pass of this thread has ended, if one ran."""
        with self._lock:
            self._running.pop(threading.current_thread(), None)

    def _notice_overlap(self) -> None:
        self._running = {thread: run for thread, run in self._running.items() if thread.is_alive()}
        if len(self._running) > 1:
            for _, passes in self._running.values():
                if passes is not None:
                    passes.why = OVERLAP

    def forget(self) -> None:
        """A pass did not get to its end."""
        for board in self._boards.values():
            board.forget()

    def devices(self) -> dict[int, torch.device]:
        """Of each layer, in order."""
        return {layer: self._taps[module].board.device for layer, module in self._modules.items()}

    # -- passes that nobody announces

    def show(self) -> None:
        """A CUDA graph of the pass that begins is being captured."""
        self.captured = True
        kept = _captured.setdefault(self._model, [])
        kept.extend(board for board in self._boards.values() if board not in kept)
        ACTIVE.set((self, *ACTIVE.get()))

    def hide(self) -> None:
        """The pass is over."""
        if self in ACTIVE.get():
            ACTIVE.set(tuple(one for one in ACTIVE.get() if one is not self))

    def expect_replays(self, generation: Generation, step: Step) -> None:
        """Graphs that were captured may continue the generation from here; ``step`` is the first of them."""
        with self._lock:
            if not self._closed:
                self._hand_over(generation, again=True)
                self._replays = generation.decoding = True  # for all that is known
                for board in self._boards.values():
                    board.prepare(step, None)

    def interrupt(self) -> None:
        """Another prompt: what graphs compute that nobody announces is no longer the holder's."""
        if self._replays:
            with self._lock:
                self._hand_over(None)

    # -- who is on the boards

    def _hand_over(self, to: Generation | None, again: bool = False) -> None:
        before = self._holder
        if before is to and not again:
            return
        if self._replays and before is not None and before is not to and not before.over:
            assert before.follower is not None
            before.follower.untraced = REPLAYED
        self._holder, self._replays = (None if self._closed else to), False
        for board in self._boards.values():
            board.catch_up()
            if self._holder is None:
                board.clear()
            else:
                follower = self._holder.follower
                assert follower is not None
                assert follower.prompt.image_index is not None
                board.load(follower.recorder.runs, follower.prompt.image_index)

    def release(self, generation: Generation) -> bool:
        """Take an ended generation off. Whether its slots may be read and given away: not as long as a pass runs that
        found it on the boards, and was not its own."""
        with self._lock:
            if self._holder is generation:
                self._hand_over(None)
                for device in self._boards:
                    mark(generation.events, device)
            if generation.follower is None or generation.follower.untraced is None:
                return True
            if generation.released is None:
                generation.released = self._begun
            return all(
                number > generation.released for thread, (number, _) in self._running.items() if thread.is_alive()
            )

    # -- the observer

    @property
    def modules(self) -> Container[nn.Module]:
        return self._taps

    @property
    def steps(self) -> dict[nn.Module, tuple[StepReader, int, int]]:
        return {}

    def watches(self, module: nn.Module) -> bool:
        return True

    def read_call(self, module: nn.Module, call: AttentionCall, source: str) -> None:
        self._taps[module].read(call)

    def read_weights(self, module: nn.Module, weights: Tensor, key: Tensor) -> None:
        self._taps[module].read_weights(weights)

    def unreadable(self, error: CaptureError) -> None:
        """Then the layer is not read."""

    def begin_compiled(self, model: nn.Module, kwargs: dict[str, Any]) -> bool:
        return False

    def end_compiled(self, finished: bool) -> None: ...
