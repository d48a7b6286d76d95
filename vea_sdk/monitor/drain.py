"""The thread that takes ended generations out of the ring and hands their records to the sinks."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Any

from vea_sdk.monitor.build import Builder
from vea_sdk.monitor.counters import Tally
from vea_sdk.monitor.generation import Generation
from vea_sdk.monitor.record import Record
from vea_sdk.monitor.ring import Ring
from vea_sdk.monitor.sinks.base import Sink

_log = logging.getLogger("vea_sdk.monitor")
_BUSY = 0.01  # seconds between looks at a pass that must end first
_WAITING = 1000  # events of the queue, beyond which a drop is counted only


class Drain:
    """Told of beginnings and ends through a queue that may be used anywhere, inside a garbage collection, too.

    Requests under way are bounded by the ring, so a sink that blocks fills the ring and not the memory.
    """

    def __init__(self, builder: Builder, ring: Ring, sinks: Sequence[Sink], tally: Tally, idle: float) -> None:
        self._builder, self._ring, self._sinks, self._tally, self._idle = builder, ring, tuple(sinks), tally, idle
        self._events: SimpleQueue[tuple[str, Any]] = SimpleQueue()
        self._open: dict[int, Generation] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._refusing = self._closing = self._over = False
        self.release: Callable[[Generation], bool] = lambda generation: True  # whether its slots may be read already
        self.on_quiet: Callable[[], None] = lambda: None  # called once when closing, after the last pass has ended

    # -- told from any thread

    def begun(self, generation: Generation) -> bool:
        """False where it is too late to begin."""
        return self._tell("begun", generation)

    def ended(self, generation: Generation, how: str) -> None:
        self._events.put((how, generation))  # no lock: a garbage collection may call this, inside of the lock, too

    def dropped(self, request: str, why: str) -> None:
        """Tell the sinks too, if they keep up; the count is exact in any case."""
        if self._events.qsize() < _WAITING:
            self._tell("dropped", (request, why))

    def flush(self, timeout: float) -> bool:
        """Wait until what has ended so far was handed to the sinks; whether that was done in time."""
        done = threading.Event()
        return done.wait(timeout) if self._tell("flush", done) else not self._open

    def close(self, timeout: float) -> int:
        """End what is under way, hand it over, close the sinks. Returns how many records were given up for lost."""
        if not self._tell("close", None, last=True):
            return 0
        if self._thread is threading.current_thread():  # a sink closes the monitor: the thread goes on to its end
            return 0
        if self._thread is not None:
            self._thread.join(timeout)
        self._over = True
        return self._tally.give_up()

    @property
    def busy(self) -> bool:
        """Whether a followed pass is running."""
        return any(generation.busy for generation in list(self._open.values()))

    def _tell(self, what: str, subject: Any, last: bool = False) -> bool:
        """False after the last word was told: what comes later would wait for ever."""
        with self._lock:
            if self._refusing:
                return False
            self._refusing = last
            self._events.put((what, subject))
            if self._thread is None or not self._thread.is_alive():
                self._tally.add(restarts=self._thread is not None)
                self._thread = threading.Thread(target=self._run, name="vea-monitor", daemon=True)
                try:
                    self._thread.start()
                except RuntimeError:  # the interpreter ends and starts no more threads
                    self._thread = None
        if last and self._thread is None:
            self._run()
        return True

    # -- the thread

    def _run(self) -> None:
        while True:
            self._sweep()
            if self._closing and not self._open:
                break
            try:
                what, subject = self._events.get(timeout=self._patience())
            except Empty:
                continue
            self._handle(what, subject)
        self.on_quiet()
        for sink in self._sinks:
            self._guarded(sink.close)

    def _patience(self) -> float | None:
        if any(generation.closed for generation in self._open.values()):
            return _BUSY
        return min(1.0, self._idle) if self._open else None

    def _handle(self, what: str, subject: Any) -> None:
        if what == "begun":
            self._open[id(subject)] = subject
        elif what == "flush":
            subject.set()
        elif what == "close":
            self._closing = True
        elif what == "dropped":
            self._hand(self._builder.dropped(*subject), counted=False)
        elif not subject.closed:
            subject.finished, subject.closed = what, True

    def _sweep(self) -> None:
        """Finish what has ended and is not in the middle of a pass; end what has been idle for too long."""
        now = time.perf_counter()
        for key, generation in list(self._open.items()):
            idle = not generation.busy and now - max(generation.touched, generation.started) > self._idle
            if not generation.closed and (self._closing or idle):
                generation.finished, generation.closed = "cut" if self._closing else "ended", True
            if generation.closed and not generation.busy and self.release(generation):
                self._finish(generation)
                del self._open[key]

    def _finish(self, generation: Generation) -> None:
        while generation.places:
            place = generation.places.pop(0)
            try:
                record = self._builder.record(generation, place)
            finally:
                self._ring.give_back(place.slot)
            self._tally.add(bytes_copied=self._builder.bytes_copied, unread=record.unread is not None)
            if record.dropped:
                self._tally.settle("drops")
            self._hand(record, counted=not record.dropped)

    def _hand(self, record: Record, counted: bool = True) -> None:
        try:
            for sink in () if self._over else self._sinks:
                self._guarded(sink.write, record)
        except BaseException:  # the thread dies of it, and another takes its place
            if counted:
                self._tally.settle("lost")
            raise
        if counted:
            self._tally.settle("records")

    def _guarded(self, call: Callable[..., None], *arguments: Any) -> None:
        try:
            call(*arguments)
        except Exception as error:
            self._tally.add(sink_errors=1)
            _log.warning("%r failed: %r", call, error)
