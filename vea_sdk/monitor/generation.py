"""One prompt (or a batch of them) and what is generated from it: what is known of it on the way."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from vea_sdk.adapters import Adapter, ImageLayout
from vea_sdk.capture import interception
from vea_sdk.capture.interception import Phase
from vea_sdk.capture.prompt import PromptTracker
from vea_sdk.capture.watch import Queries, Watch
from vea_sdk.monitor.scope import Sizes
from vea_sdk.monitor.slots import SlotRecorder


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
        self.seconds = 0.0  # of the host, spent here

    def knows_encoder(self, ids: Tensor | None) -> None:
        """What the encoder was fed, which runs before the first pass."""
        self._encoder_ids = ids

    def enter(self, part: str, names: tuple[str, ...], module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        """``part`` of the model begins: "model", "decoder" or "attention"."""
        self._safely(getattr(self, f"_enter_{part}"), names, module, args, kwargs)

    def watches(self, module: Any) -> bool:
        """As in a session, but nothing is let out."""
        if module in self._visible:
            self.enter("attention", (), module, (), {})
        return module is self._current

    def _tell(self, *_: Any) -> bool:
        """Nothing is read inside of a compiled pass: a graph that records would be a second one, made in the middle of
        a request."""
        return False

    def leave_attention(self, module: Any, args: Any, output: Any) -> None:
        self._safely(self._leave_attention, module, args, output)
        if self.problem is not None:
            self.let_go()

    def leave_pass(self, live: Tensor | None) -> None:
        self._safely(self.recorder.end_pass, live)
        self.let_go()

    def let_go(self) -> None:
        """Keep nothing of the running pass: its arguments hold the cache, whose end is the end of the request."""
        while self._modes:
            self._modes.pop().close()
        self._outermost, self._outer, self._fed = None, {}, {}
        self._step, self._current, self._inputs = None, None, ((), (), {})

    def read_call(self, module: Any, call: Any, source: str) -> None:
        self._safely(super().read_call, module, call, source)

    def read_weights(self, module: Any, weights: Tensor, key: Tensor) -> None:
        self._safely(super().read_weights, module, weights, key)

    def _safely(self, call: Callable[..., None], *args: Any) -> None:
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

    def leave_pass(self) -> None:
        follower, ids, self._fed_now = self.follower, self._fed_now, None
        assert follower is not None
        interception.ACTIVE.set(tuple(one for one in interception.ACTIVE.get() if one is not follower))
        try:
            generated = follower.recorder.fed > 0
            live = None  # rows that have not ended; alone, a row ends with its generation
            if generated and self.pad is not None and ids is not None and ids.shape[0] > 1:
                live = ids[:, -1].ne(self.pad)
            follower.leave_pass(live)
            self.touched = time.perf_counter()
            if not generated:
                self.prompt_ended = self.touched
                self.index, self.valid = follower.prompt.image_index, follower.prompt.valid_tokens
                self.prompt_length = follower.prompt.seen
            elif self.fed is not None and ids is not None:
                self.fed.append(ids)
            for device in set(follower.recorder.device_of.values()):
                if device.type == "cuda":
                    event = self.events.setdefault(device, torch.cuda.Event())  # type: ignore[no-untyped-call]
                    event.record(torch.cuda.current_stream(device))
        finally:
            self.busy = False

    _fed_now: Tensor | None = None
