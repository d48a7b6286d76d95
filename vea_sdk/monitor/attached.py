"""The monitor that is on a model: it decides which requests are sampled, and holds the parts together."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from vea_sdk.adapters import Adapter
from vea_sdk.capture import interception
from vea_sdk.capture.interception import CALL, PHASE
from vea_sdk.capture.watch import Queries
from vea_sdk.monitor import lifetime
from vea_sdk.monitor.boards import Boards
from vea_sdk.monitor.build import Builder
from vea_sdk.monitor.certainty import Chosen
from vea_sdk.monitor.counters import Counters, Tally
from vea_sdk.monitor.drain import Drain
from vea_sdk.monitor.generation import Follower, Generation, Place, mark
from vea_sdk.monitor.hooks import Hooks, no_graph_is_made
from vea_sdk.monitor.passes import Passes
from vea_sdk.monitor.prompt import UnreadPrompt
from vea_sdk.monitor.ring import Ring
from vea_sdk.monitor.sampling import check_rate, sampled
from vea_sdk.monitor.scope import SCOPE, Request, RequestScope, name_rows
from vea_sdk.monitor.sinks.base import Sink
from vea_sdk.monitor.slots import SlotRecorder

_QUIET = 0.005  # seconds between looks for a moment without a compiled pass


class Monitor:
    """What :func:`vea_sdk.monitor` returns: on until it is closed. One handle serves all threads that run the model."""

    def __init__(
        self,
        adapter: Adapter,
        layers: tuple[int, ...],
        sinks: Sequence[Sink],
        sample_rate: float,
        max_inflight: int,
        max_image_tokens: int,
        idle_timeout: float,
        content: bool,
        compiled: bool = False,
        **options: Any,
    ) -> None:
        self.layers = layers
        self.sample_rate = sample_rate
        self._adapter, self._sinks, self._content, self._idle = adapter, tuple(sinks), content, idle_timeout
        self._told = tuple(sink.begin for sink in sinks if hasattr(sink, "begin"))
        self._pad = _pad_id(adapter.model)
        attention = adapter.modules_by_layer()
        devices = {tensor.device for layer in layers for tensor in attention[layer].parameters()}
        self._ring = Ring(len(layers), max_inflight, max_image_tokens, devices - {torch.device("meta")}, spare=compiled)
        self._builder = Builder(adapter, layers, self._ring, content=content, **options)
        self._closing = threading.Lock()
        self._closed = self._detached = False
        with no_graph_is_made():
            self._boards = Boards(adapter, layers, self._ring) if compiled else None
        self._start()
        interception.acquire()
        try:
            with no_graph_is_made():
                self._hooks = Hooks(adapter, layers, self._begin, self._end, self._boards)
        except BaseException:
            if self._boards is not None:
                self._boards.close()
            interception.release()
            raise
        lifetime.add(self)

    @property
    def sample_rate(self) -> float:
        """Share of the requests that are sampled, 0 to 1. May be changed while requests are answered."""
        return self._rate

    @sample_rate.setter
    def sample_rate(self, rate: float) -> None:
        self._rate = check_rate(rate)

    @property
    def counters(self) -> Counters:
        """What was done so far; in a forked process, since the fork."""
        return self._tally.snapshot()

    def request(self, ids: str | Sequence[str], image_sizes: Sequence[Any] | None = None) -> RequestScope:
        """Name what is asked inside this context; the sampling decision is made from the name.

            with handle.request("a7f3", image_sizes=[(480, 640)]):
                model.generate(**inputs)

        The request ends with the context at the latest. Every prompt fed inside is a record of its own under this name.
        The name is seen where the context variables of the caller are: ``asyncio.to_thread`` carries them over to the
        thread, an executor does not.

        Args:
            ids: of the one request, or of those in the rows of a batch. One id for a batch of several names its rows
                "id/0", "id/1", ...
            image_sizes: (height, width) of each original picture of the request, in prompt order; for several ids one
                such list each. With them the record says which pixels the highest patches show.

        Raises:
            InvalidInputError: for ids that are no strings, or sizes that do not go with them.
        """
        return RequestScope(ids, image_sizes)

    def flush(self, timeout: float = 2.0) -> bool:
        """Wait until the records of all requests that have ended were handed to the sinks; False where they were not
        within ``timeout`` seconds."""
        return self._drain.flush(timeout)

    def close(self, timeout: float = 2.0) -> None:
        """Take every hook off, hand over what is left, and close the sinks.

        Requests under way get a record that says "cut". What is not handed over within ``timeout`` seconds is counted
        as lost. A pass that takes longer keeps its hooks until it ends.
        """
        with self._closing:
            if self._closed:
                return
            self._closed = True
        lifetime.remove(self)
        lost = self._drain.close(timeout)
        if not self._drain.busy:
            self._detach(timeout)
        if lost:
            lifetime.log.warning("%d records were not handed over within %g s and are lost", lost, timeout)

    def __enter__(self) -> Monitor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __deepcopy__(self, memo: dict[int, Any]) -> Monitor:
        return self

    def after_fork(self) -> None:
        """In a forked child: what is under way is the parent's; thread, places and counters begin anew."""
        self._ring.forget_taken()
        if self._boards is not None:
            self._boards.after_fork()
        self._closing = threading.Lock()
        self._start()

    def _start(self) -> None:
        self._tally = Tally()
        self._drain = Drain(self._builder, self._ring, self._sinks, self._tally, self._idle)
        self._drain.on_quiet = self._detach
        if self._boards is not None:
            self._drain.release = self._boards.release

    def _detach(self, timeout: float = -1) -> None:
        """In so many seconds, or -1 for any; the drain thread comes back to it where that was not enough."""
        until = time.monotonic() + timeout
        while not self._detached:
            with no_graph_is_made(timeout) as in_time, self._closing:
                if in_time and not self._detached and (self._boards is None or self._boards.close()):
                    self._detached = True
                    self._hooks.remove()
                    interception.release()
                    return
            if timeout >= 0 and time.monotonic() > until:
                return
            time.sleep(_QUIET)

    # -- called in the middle of requests

    def _begin(self, fed: Mapping[str, Any], tokens: Tensor, before: Generation | None) -> Generation:
        """A new prompt: decide which of its requests are sampled, and find a place for them."""
        phase, call = PHASE.get(), CALL.get()
        prompt = None if before is None else before.prompt
        generation = Generation(phase=phase, prompt=prompt)
        if self._closed:
            return generation
        rows = tokens.shape[0]
        given = None if call is None else call.inputs["input_ids"]
        if self._boards is not None:
            self._boards.place()
            if call is None:
                self._boards.interrupt()
        requests = name_rows(rows, given.shape[0] if isinstance(given, Tensor) else None)
        chosen = [request for request in requests if sampled(request.key, self._rate)]
        self._tell(chosen)
        slots = self._ring.take(len(chosen)) if chosen else []
        full = chosen[len(slots) :]
        self._tally.add(requests=len(requests), samples=len(chosen), drops=len(full))
        for request in full:
            self._drain.dropped(request.name, f"all {self._ring.slots} places are taken; raise max_inflight=")
        if not slots:
            return generation
        generation.places = [
            Place(request.number, request.row, slot, request.name) for request, slot in zip(chosen, slots, strict=False)
        ]
        generation.prompt = prompt or UnreadPrompt(self._adapter, self._ring.width)
        recorder = SlotRecorder(self.layers, self._ring, [(place.row, place.slot) for place in generation.places])
        assisted = phase is not None and phase.name == "assisted"
        queries: Queries = "last" if assisted else "all"  # drafts are fed before it is known whether they stay
        generation.follower = Follower(self._adapter, self.layers, queries, generation.prompt, recorder)
        generation.follower.knows_encoder(self._hooks.encoder_ids)
        if self._boards is not None:
            generation.follower.follow_graphs(Passes(self._boards, generation))
        generation.chosen = Chosen.of(call, phase, [place.row for place in generation.places])
        generation.pad = self._pad
        generation.fed = [] if self._content else None
        if requests[0].sizes is not None:
            generation.image_sizes = tuple(request.sizes or () for request in requests)
        generation.inputs = _without_pixels(fed if call is None else call.inputs)
        if not self._drain.begun(generation):  # closed meanwhile
            for place in generation.places:
                self._tally.settle("lost")
                self._ring.give_back(place.slot)
            return Generation(phase=phase)
        for span in (call, SCOPE.get()):
            if span is not None:
                span.at_end(partial(self._end_of_span, generation))
        return generation

    def _tell(self, chosen: Sequence[Request]) -> None:
        """The sinks that want to know of a request while it is the current one, such as that of tracing."""
        for begin in self._told:
            for request in chosen:
                try:
                    begin(request.name)
                except Exception as error:
                    self._tally.add(sink_errors=1)
                    lifetime.log.warning("%r failed: %r", begin, error)

    def _end_of_span(self, generation: Generation, error: BaseException | None, result: Any) -> None:
        sequences = result if isinstance(result, Tensor) else getattr(result, "sequences", None)
        if self._content and generation.answer is None:
            generation.answer = sequences
        if sequences is not None:
            generation.choose(Chosen.end, sequences)
        if generation.chosen is not None and generation.chosen.device is not None:
            mark(generation.events, generation.chosen.device)
        self._end(generation, "ended" if error is None else "failed")

    def _end(self, generation: Generation, how: str) -> None:
        generation.over = True
        if generation.follower is not None and not generation.closed:
            self._drain.ended(generation, how)


def _without_pixels(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The prompts' inputs as far as geometry asks for them: whole numbers, and the shapes of everything else."""
    return {
        name: torch.empty_like(value, device="meta") if value.is_floating_point() else value
        for name, value in inputs.items()
        if isinstance(value, Tensor)
    }


def _pad_id(model: nn.Module) -> int | None:
    """What ``generate()`` feeds to rows that have ended before others of their batch."""
    for config in (getattr(model, "generation_config", None), getattr(model, "config", None)):
        for name in ("pad_token_id", "eos_token_id"):
            value = getattr(config, name, None)
            if isinstance(value, list) and value:
                value = value[0]
            if isinstance(value, int):
                return value
    return None
