"""One generation's part in the compiled passes of its model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from vea_sdk.adapters import AttentionCall
from vea_sdk.capture.compiled import CompiledPasses
from vea_sdk.capture.interception import CALL
from vea_sdk.capture.prompt import Step
from vea_sdk.errors import CaptureError
from vea_sdk.monitor.boards import Boards

if TYPE_CHECKING:
    from vea_sdk.monitor.generation import Generation

_REFUSED = (
    "a compiled pass of this model cannot be followed: it has an encoder, runs an attention module for several layers, "
    "or takes a cache that is not known."
)


class Passes(CompiledPasses):
    """Has every pass read into the generation's slots of the ring. What could not be read of the prompt is raised; of a
    generated token, it stands in ``untraced`` of the follower, and nothing more is read."""

    def __init__(self, boards: Boards, generation: Generation) -> None:
        follower = generation.follower
        assert follower is not None
        super().__init__(follower.runs, follower.recorder, ())
        self.generation, self._follower, self._slots = generation, follower, follower.recorder
        self.step: Step | None = None  # of the running pass, where it is read
        self.live: Tensor | None = None  # [B] rows of it that have not ended before
        self.why: str | None = None  # it cannot be read
        self._boards = boards

    def begin(self, step: Step | None, outside: nn.Module | None) -> None:
        self._running, self.why = True, None
        if step is not None and step.batch > self._boards.rows:
            self.why = f"a batch of {step.batch}, but graphs read {self._boards.rows} rows; raise max_inflight="
        if step is not None and step.kind == "prompt" and step.length == 1:
            self.why = "the last token of the prompt was fed alone inside a compiled graph"
        self._kind = None if step is None else step.kind
        wanted = not self._slots.too_many and self.why is None and self._follower.untraced is None
        self.step = step if wanted else None
        self.live = self.generation.live() if self._kind == "generated" else None
        if self.step is not None and self._kind == "prompt":
            for layer, device in self._boards.devices().items():
                self._slots.ready(layer, device)
        self._boards.begin(self)

    def expect_replays(self) -> None:
        """A pass has ended that was no graph, and CUDA graphs that were captured by hand may feed the next token."""
        index = self._follower.prompt.image_index
        if self._boards.captured and CALL.get() is None and index is not None and index.shape[1]:
            batch, seen = index.shape[0], self._follower.prompt.seen + 1
            if batch <= self._boards.rows and not self._slots.too_many:
                self._slots.passes = None
                self._boards.expect_replays(self.generation, Step("generated", batch, 1, seen, None, index.device))

    def read_call(self, module: nn.Module, call: AttentionCall, source: str) -> None:
        """What the compiler has left to Python."""
        self._boards.read_call(module, call, source)

    def read_weights(self, module: nn.Module, weights: Tensor, key: Tensor) -> None:
        self._boards.read_weights(module, weights, key)

    def refuse(self) -> None:
        """A compiled pass begins that is not read."""
        self._follower.untraced = _REFUSED
        self._boards.begin(None)

    def end(self, finished: bool) -> None:
        """Raises CaptureError when the prompt was not read."""
        if not self._running:
            return
        self._running = False
        if not finished:
            self._boards.forget()
        if self.step is not None:
            self._slots.read_by_graph(finished)
        self.step = self.live = None
        if self.why is not None and self._kind is not None:
            self._follower.untraced = self._follower.untraced or self.why
            if self._kind == "prompt":
                raise CaptureError(self.why)

    _kind: str | None = None  # of the running pass
