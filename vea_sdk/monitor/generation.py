"""One prompt (or a batch of them) and what is generated from it: what is known of it on the way."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vea_sdk.adapters import Adapter, ImageLayout
from vea_sdk.capture import interception
from vea_sdk.capture.interception import Phase
from vea_sdk.capture.prompt import PromptTracker
from vea_sdk.capture.runs import Runs
from vea_sdk.capture.watch import Queries, Watch
from vea_sdk.errors import CaptureError
from vea_sdk.monitor.certainty import Chosen
from vea_sdk.monitor.scope import Sizes
from vea_sdk.monitor.slots import SlotRecorder

if TYPE_CHECKING:
    from vea_sdk.monitor.passes import Passes

_log = logging.getLogger("vea_sdk.monitor")


@dataclass(frozen=True)
class Place:
    """A sampled request: which one of its batch, its row there (the first of its beams), its slot, its name."""

    number: int
    row: int
    slot: int
    request: str


class Follower(Watch):
    """A watch that hooks nothing itself, is told of the passes of one generation, and never lets an error out."""

    def __init__(
        self,
        adapter: Adapter,
        layers: tuple[int, ...],
        queries: Queries,
        prompt: PromptTracker,
        recorder: SlotRecorder,
    ) -> None:
        super().__init__(adapter.model, adapter, layers, queries, prompt, recorder, stop_early=False)
        self.prompt, self.recorder = prompt, recorder
        self.problem: str | None = None
        self.untraced: str | None = None  # why generated tokens could not be read
        self.seconds = 0.0  # of the host, spent here
        self.passes: Passes | None = None  # where passes inside of graphs are followed, too
        self.told = False  # whether the running pass is such a one

    def knows_encoder(self, ids: Tensor | None) -> None:
        """What the encoder was fed, which runs before the first pass."""
        self._encoder_ids = ids

    def enter(self, part: str, names: tuple[str, ...], module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        """``part`` of the model begins: "model", "decoder" or "attention"."""
        if part == "decoder" and self.told:  # the compiler gave up on what calls it; all was said before the pass
            return
        self._safely(getattr(self, f"_enter_{part}"), names, module, args, kwargs)

    def watches(self, module: Any) -> bool:
        """As in a session, but nothing is let out."""
        if self.told:  # though not by a graph: the compiler gave up on this module
            return module in self._runs.modules
        if module in self._visible:
            self.enter("attention", (), module, (), {})
        return module is self._current

    def _is_own(self, fed: Mapping[str, Any]) -> bool:
        """It is told of its own passes alone."""
        self._own = True
        return True

    def follow_graphs(self, passes: Passes) -> None:
        """Follow compiled passes, too."""
        self._compiled = self.passes = passes

    @property
    def runs(self) -> Runs:
        return self._runs

    def continue_by_graphs(self) -> None:
        """A pass has ended. Graphs that were captured by hand may go on from here."""
        if self.passes is not None:
            self._safely(self.passes.expect_replays)

    def begin_compiled(self, model: nn.Module, kwargs: dict[str, Any]) -> bool:
        """``model`` may also be the part of it that generates by itself."""
        self._outer = kwargs
        self._safely(self._tell, tuple(kwargs), kwargs, None)
        return self.told

    def _tell(self, names: tuple[str, ...], fed: Mapping[str, Any], outside: nn.Module | None) -> bool:
        """Unless it is asked for, nothing is read inside of a compiled pass: a graph that records is a second one."""
        if self.passes is None:
            return False
        try:
            self.told = super()._tell(names, fed, outside)
        finally:
            if not self.told:
                self.passes.refuse()
        return self.told

    def leave_attention(self, module: Any, args: Any, output: Any) -> None:
        self._safely(self._leave_attention, module, args, output)
        if self.problem is not None:
            self.let_go()

    def leave_pass(self, live: Tensor | None, finished: bool) -> None:
        if self.told:
            self._safely(self._compiled.end, finished)
        else:
            self._safely(self.recorder.end_pass, live)
        self.let_go()

    def let_go(self) -> None:
        """Keep nothing of the running pass: its arguments hold the cache, whose end is the end of the request."""
        while self._modes:
            self._modes.pop().close()
        self._outermost, self._outer, self._fed = None, {}, {}
        self._step, self._current, self._inputs = None, None, ((), (), {})
        self.told = self._own = False

    def read_call(self, module: Any, call: Any, source: str) -> None:
        reader = self.passes.read_call if self.told and self.passes is not None else super().read_call
        self._safely(reader, module, call, source)

    def read_weights(self, module: Any, weights: Tensor, key: Tensor) -> None:
        reader = self.passes.read_weights if self.told and self.passes is not None else super().read_weights
        self._safely(reader, module, weights, key)

    def unreadable(self, error: CaptureError) -> None:
        self._safely(super().unreadable, error)

    def _safely(self, call: Callable[..., object], *args: Any) -> None:
        """A request is never failed by who watches it; what went wrong stands in its record."""
        if self.problem is not None:
            return
        started = time.perf_counter()
        try:
            call(*args)
        except Exception as error:
            self.problem = f"{type(error).__name__}: {error}"
        self.seconds += time.perf_counter() - started


@dataclass(eq=False)
class Generation:
    """State of a batch from its first pass to its end. Where none of its requests is sampled, ``follower`` is None.

    ``closed`` is set by the drain thread and ``busy`` by the thread that runs a pass; each sets its own first and then
    looks at the other, so that no pass writes into slots that are being read, or belong to somebody else.
    """

    phase: Phase | None = None  # of generate(), in which the prompt is fed
    prompt: PromptTracker | None = None  # kept along a cache from turn to turn
    follower: Follower | None = None
    chosen: Chosen | None = None  # tokens of the answer, where they tell how sure of it the model was
    places: list[Place] = field(default_factory=list)
    ids: Tensor | None = None  # of the last pass, where no cache tells generations apart
    decoding: bool = False  # whether a generated token was fed
    image_sizes: tuple[Sizes, ...] | None = None  # of each request of the batch
    prompt_length: int = 0  # tokens fed as the prompt
    index: Tensor | None = None  # [B, M] key positions of the image tokens
    valid: Tensor | None = None  # [B] tokens of the prompt without padding
    layouts: list[list[ImageLayout]] | None = None  # of each request's pictures, once asked for
    inputs: Mapping[str, Any] = field(default_factory=dict)  # of the prompts, without pixels
    pad: int | None = None  # id that is fed to rows that have ended before others
    answer: Tensor | None = None  # only where content is recorded: what generate() returned
    fed: list[Tensor] | None = None  # only where content is recorded: the generated ids
    started: float = field(default_factory=time.perf_counter)
    prompt_ended: float = 0.0
    touched: float = 0.0  # when its last pass ended
    busy: bool = False
    closed: bool = False
    over: bool = False  # it was told that it has ended; closed comes later, from the drain thread
    released: int | None = None  # compiled passes that had begun when it left the boards
    finished: str = ""  # how it ended
    events: dict[torch.device, Any] = field(default_factory=dict)  # on a GPU, the end of the last pass

    def enter_pass(self, ids: Tensor | None) -> bool:
        """Whether the pass is to be followed; ``ids`` [B, L] are fed in it."""
        assert self.follower is not None
        self.busy = True
        if self.closed:
            self.busy = False
            return False
        self._fed_now = ids
        # First, because a session may stop the pass at its deepest layer.
        interception.ACTIVE.set((self.follower, *interception.ACTIVE.get()))
        return True

    def live(self) -> Tensor | None:
        """Rows [B] that have not ended before the running pass; None for all: alone, a row ends with its generation."""
        ids = self._fed_now
        return None if self.pad is None or ids is None or ids.shape[0] == 1 else ids[:, -1].ne(self.pad)

    def leave_pass(self, finished: bool = True, output: Any = None) -> None:
        """``finished``: the pass came to its end; ``output``: with this, None where the host does not see it."""
        follower, ids = self.follower, self._fed_now
        assert follower is not None
        interception.ACTIVE.set(tuple(one for one in interception.ACTIVE.get() if one is not follower))
        try:
            generated = follower.recorder.fed > 0
            follower.leave_pass(self.live() if generated and not follower.told else None, finished)
            self.touched = time.perf_counter()
            if not generated:
                self.prompt_ended = self.touched
                self.index, self.valid = follower.prompt.image_index, follower.prompt.valid_tokens
                self.prompt_length = follower.prompt.seen
            elif self.fed is not None and ids is not None:
                self.fed.append(ids)
            self.choose(Chosen.add, ids, output)
            follower.continue_by_graphs()
            for device in set(follower.recorder.device_of.values()):
                mark(self.events, device)
        finally:
            self._fed_now = None
            self.busy = False

    def choose(self, call: Callable[..., None], *args: Any) -> None:
        """Follow the tokens of the answer; what fails costs the certainty and nothing else."""
        if self.chosen is None or self.follower is None:
            return
        started = time.perf_counter()
        try:
            call(self.chosen, *args)
        except Exception:
            _log.warning("no certainty is known of an answer", exc_info=True)
            self.chosen = None
        self.follower.seconds += time.perf_counter() - started

    _fed_now: Tensor | None = None


def mark(events: dict[torch.device, Any], device: torch.device) -> None:
    """Note on a GPU that what was launched so far comes first."""
    if device.type == "cuda":
        event = events.setdefault(device, torch.cuda.Event())  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(device))
