"""What can go wrong beside a request or in it: the request's own output stays the same to the last bit."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from families import TinyFamily
from monitoring import Kept, close, expected, nothing_is_left, said, same  # noqa: F401
from test_capture import eager_rows, generate, padded, picture, single
from torch.overrides import _get_current_function_mode_stack

import vea_sdk as vea
from vea_sdk.capture import interception
from vea_sdk.monitor.record import Record


def watch(family: TinyFamily, *sinks: Any, **options: Any) -> Any:
    return vea.monitor(family.model, sinks=sinks, **({"sample_rate": 1.0, "layers": [1, 2]} | options))


# --- sinks ----------------------------------------------------------------------------------------------------------


class Raises(Kept):
    def write(self, record: Record) -> None:
        raise ValueError("no")

    def close(self) -> None:
        raise ValueError("no")


class FullDisk(Kept):
    def write(self, record: Record) -> None:
        with open("/dev/full", "w") as file:  # noqa: PTH123
            file.write(record.request)


class Blocks(Kept):
    """Until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.go = threading.Event(), threading.Event()

    def write(self, record: Record) -> None:
        self.entered.set()
        assert self.go.wait(30)
        super().write(record)


class Exits(Kept):
    """Ends the thread that calls it, the first time."""

    def write(self, record: Record) -> None:
        super().write(record)
        if len(self.records) == 1:
            sys.exit(1)


@pytest.mark.parametrize("broken", [Raises, FullDisk])
def test_a_sink_that_fails(family: TinyFamily, sink: Kept, broken: type[Kept], caplog: Any) -> None:
    inputs = single(family)
    before = said(family.model, inputs)
    with watch(family, broken(), sink) as handle:
        for _ in range(3):
            assert same(said(family.model, inputs), before)
        assert handle.flush()
        assert handle.counters.sink_errors == 3
    assert handle.counters.records == len(sink.records) == 3  # the others get theirs
    assert "failed" in caplog.text


def test_a_sink_that_blocks_holds_up_nobody(family: TinyFamily) -> None:
    """It fills the ring; what finds no place is dropped and counted."""
    sink = Blocks()
    inputs = single(family)
    before = said(family.model, inputs)
    with watch(family, sink, max_inflight=4) as handle:
        said(family.model, inputs)
        assert sink.entered.wait(10)
        for _ in range(10):
            assert same(said(family.model, inputs), before)
        counted = handle.counters
        assert (counted.samples, counted.records) == (11, 0)
        assert counted.drops == 6  # 4 wait in the ring, and the first one's place was given back before the sink had it
        sink.go.set()
        assert handle.flush()
    counted = handle.counters
    assert (counted.records, counted.drops, counted.lost) == (5, 6, 0)
    assert [record.dropped for record in sink.records].count(True) == 6
    assert all(record.mean.image_mass is None for record in sink.records if record.dropped)


def test_close_does_not_wait_for_a_sink_that_blocks(family: TinyFamily, caplog: Any) -> None:
    sink = Blocks()
    handle = watch(family, sink)
    generate(family.model, single(family))
    assert sink.entered.wait(10)
    generate(family.model, single(family))
    assert not handle.flush(timeout=0.1)
    started = time.monotonic()
    handle.close(timeout=0.3)
    assert time.monotonic() - started < 2
    assert (handle.counters.samples, handle.counters.lost, handle.counters.records) == (2, 2, 0)
    assert "2 records" in caplog.text
    sink.go.set()
    handle._drain._thread.join(10)
    assert (handle.counters.lost, handle.counters.records) == (2, 0)  # given up is given up
    assert sink.closed == 1


def test_a_sink_that_closes_the_monitor(family: TinyFamily) -> None:
    class Closes(Kept):
        def write(self, record: Record) -> None:
            super().write(record)
            handle.close()

    sink = Closes()
    handle = watch(family, sink)
    generate(family.model, padded(family))
    handle._drain._thread.join(10)
    generate(family.model, single(family))
    assert len(sink.records) == handle.counters.records == handle.counters.samples == 2
    assert sink.closed == 1
    handle.close()
    assert handle.flush()  # nothing is left to wait for
    assert sink.closed == 1


def test_a_drain_thread_that_dies_is_replaced(family: TinyFamily) -> None:
    sink = Exits()
    inputs = single(family)
    before = said(family.model, inputs)
    with watch(family, sink) as handle:
        said(family.model, inputs)
        handle._drain._thread.join(10)
        assert not handle._drain._thread.is_alive()
        assert same(said(family.model, inputs), before)
        assert handle.flush()
        counted = handle.counters
        assert (counted.restarts, counted.lost, counted.records, counted.samples) == (1, 1, 1, 2)


def test_a_drain_thread_that_dies_leaves_the_rest_of_its_batch_to_the_next(family: TinyFamily) -> None:
    sink = Exits()
    with watch(family, sink) as handle:
        generate(family.model, padded(family))
        handle._drain._thread.join(10)
        assert handle.flush()
    assert len(sink.records) == 2
    assert (handle.counters.restarts, handle.counters.lost, handle.counters.records) == (1, 1, 1)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("error", [RuntimeError("no memory"), SystemExit(1), KeyboardInterrupt()])
def test_a_record_that_cannot_be_made_gives_its_place_back(
    family: TinyFamily, sink: Kept, error: BaseException, monkeypatch: Any
) -> None:
    with watch(family, sink, max_inflight=1) as handle:
        with monkeypatch.context() as patched:
            patched.setattr(handle._builder, "record", raises(error))
            generate(family.model, single(family))
            handle._drain._thread.join(10)
            assert not handle._drain._thread.is_alive()
        for _ in range(2):  # there is one place, and each of them needs it
            generate(family.model, single(family))
            assert handle.flush()
    counted = handle.counters
    assert [one.dropped for one in sink.records] == [False, False]
    assert (counted.samples, counted.records, counted.drops, counted.lost, counted.restarts) == (3, 2, 0, 1, 1)


def raises(error: BaseException) -> Any:
    def fail(*_: Any) -> None:
        raise error

    return fail


# --- requests -------------------------------------------------------------------------------------------------------


class Breaks:
    """A streamer that raises at a token."""

    def __init__(self, at: int, error: BaseException | None = None) -> None:
        self.left, self.error = at, error

    def put(self, value: Any) -> None:
        if self.left == 0 and self.error is not None:
            raise self.error
        self.left -= 1

    def end(self) -> None:
        pass


@pytest.mark.parametrize("error", [ValueError("enough"), KeyboardInterrupt()])
def test_generate_that_raises_half_way(family: TinyFamily, sink: Kept, error: BaseException) -> None:
    inputs = single(family)
    before = said(family.model, inputs)
    rows, _ = eager_rows(family, inputs)
    with watch(family, sink, layers="all") as handle:
        with pytest.raises(type(error)):
            generate(family.model, inputs, streamer=Breaks(3, error))  # the prompt and two tokens
        assert same(said(family.model, inputs), before)
        assert handle.flush()
    failed, ended = sink.records
    assert (failed.finished, ended.finished) == ("failed", "ended")
    assert failed.generated_tokens == 2
    assert close(failed.mean, expected(rows[:, 0, 0], failed.prompt_tokens)["mean"])
    assert failed.mean == ended.mean


@pytest.mark.parametrize("error", [ValueError("enough"), KeyboardInterrupt()])
@pytest.mark.parametrize("in_generate", [True, False])
def test_a_pass_that_is_torn_down(family: TinyFamily, sink: Kept, error: BaseException, in_generate: bool) -> None:
    """Ctrl-C in the middle of a layer skips even the hooks that are always called."""
    inputs = single(family)
    before = said(family.model, inputs)

    def tear(*_: Any) -> None:
        raise error

    with watch(family, sink) as handle:
        hook = family.model.model.language_model.layers[2].self_attn.o_proj.register_forward_pre_hook(tear)
        try:
            with pytest.raises(type(error)), torch.no_grad():
                generate(family.model, inputs) if in_generate else family.model(**inputs)
        finally:
            hook.remove()
        assert same(said(family.model, inputs), before)
        assert handle.flush()
        assert interception.ACTIVE.get() == ()
        assert not _get_current_function_mode_stack()
    assert handle.counters.records == handle.counters.samples == 2
    assert sink.records[-1].unread is None
    failed = [record for record in sink.records if record.generated_tokens == 0]
    assert [record.finished for record in failed] == [
        "failed" if in_generate or isinstance(error, ValueError) else "cut"
    ]


def test_a_request_that_is_cancelled(family: TinyFamily, sink: Kept) -> None:
    """The caller goes; the thread that generates does not hear of it, and ends as if nothing had been."""
    inputs = single(family)
    before = said(family.model, inputs)
    halfway, cancelled = threading.Event(), threading.Event()
    answers: list[Any] = []

    class Waits(Breaks):
        def put(self, value: Any) -> None:
            self.left -= 1
            if self.left == 0:
                halfway.set()
                assert cancelled.wait(10)

    def work() -> None:
        answers.append(said(family.model, inputs, streamer=Waits(3)))

    async def serve() -> None:
        async def request() -> None:
            with handle.request("cancelled"):
                await asyncio.to_thread(work)

        task = asyncio.create_task(request())
        await asyncio.to_thread(halfway.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert handle.flush()
        cancelled.set()

    with watch(family, sink) as handle:
        asyncio.run(serve())  # waits for the thread
        assert same(answers[0], before)
        assert handle.flush()
    (record,) = sink.records
    assert (record.request, record.finished) == ("cancelled", "failed")
    assert record.generated_tokens == 1  # when the caller went


def test_a_full_ring_drops_and_counts(family: TinyFamily, sink: Kept) -> None:
    inputs = family.inputs([[picture(i)] for i in range(3)], ["one", "another", "and a third question"])
    rows, sequences = eager_rows(family, inputs)
    with watch(family, sink, max_inflight=2, layers="all") as handle, handle.request(["a", "b", "c"]):
        assert torch.equal(generate(family.model, inputs), sequences)
    counted = handle.counters
    assert (counted.requests, counted.samples, counted.records, counted.drops) == (3, 3, 2, 1)
    found = sink.by_name()
    assert found["c"].dropped
    assert "max_inflight" in str(found["c"].unread)
    for i, name in enumerate("ab"):
        assert close(found[name].mean, expected(rows[:, i, 0], found[name].prompt_tokens)["mean"])


def test_more_image_tokens_than_a_place_holds(family: TinyFamily, sink: Kept) -> None:
    inputs = single(family)
    before = said(family.model, inputs)
    with watch(family, sink, max_image_tokens=63) as handle:
        assert same(said(family.model, inputs), before)
    assert (handle.counters.samples, handle.counters.drops, handle.counters.records) == (1, 1, 0)
    (record,) = sink.records
    assert record.dropped
    assert "max_image_tokens" in str(record.unread)
    with watch(family, sink, max_image_tokens=64) as handle:
        generate(family.model, inputs)
    assert handle.counters.records == 1


def test_an_abandoned_request_ends_when_nothing_comes_any_more(family: TinyFamily, sink: Kept) -> None:
    with watch(family, sink, idle_timeout=0.2) as handle, torch.no_grad():
        kept = family.model(**single(family))
        deadline = time.monotonic() + 10
        while not sink.records and time.monotonic() < deadline:
            time.sleep(0.02)
        assert sink.records[0].finished == "ended"
        token = kept.logits[:, -1:].argmax(-1)
        family.model(input_ids=token, past_key_values=kept.past_key_values)  # it is over, and not begun anew
        assert handle.counters.samples == 1


def test_an_error_of_the_watcher_stays_with_the_watcher(family: TinyFamily, sink: Kept, monkeypatch: Any) -> None:
    inputs = single(family)
    before = said(family.model, inputs)

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("the kernel is ill")

    with monkeypatch.context() as patched, watch(family, sink) as handle:
        patched.setattr("vea_sdk.ops.image_attention", fail)
        assert same(said(family.model, inputs), before)
    assert (handle.counters.unread, handle.counters.records) == (1, 1)
    assert "the kernel is ill" in str(sink.records[0].unread)
    with monkeypatch.context() as patched, watch(family, sink) as handle:
        patched.setattr(sys.modules["vea_sdk.monitor.attached"], "name_rows", fail)
        assert same(said(family.model, inputs), before)
    with monkeypatch.context() as patched, watch(family, sink) as handle:
        patched.setattr(sys.modules["vea_sdk.monitor.build"], "read", fail)
        assert same(said(family.model, inputs), before)
        assert handle.flush()
    assert "the kernel is ill" in str(sink.records[-1].unread)


# --- the model and the process --------------------------------------------------------------------------------------


def test_close_while_requests_are_answered(family: TinyFamily, sink: Kept) -> None:
    inputs = single(family)
    before = said(family.model, inputs)
    stop = threading.Event()
    wrong: list[Any] = []

    def serve() -> None:
        while not stop.is_set():
            if not same(said(family.model, inputs), before):
                wrong.append(1)

    threads = [threading.Thread(target=serve) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(5):
            with watch(family, sink, max_inflight=3) as handle:
                time.sleep(0.2)
            counted = handle.counters
            assert counted.samples == counted.records + counted.drops + counted.lost
            assert counted.lost == 0
            assert counted.records > 0
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not wrong
    assert "cut" in {record.finished for record in sink.records}


def test_a_request_that_begins_while_the_monitor_closes(family: TinyFamily, sink: Kept) -> None:
    """It is counted as lost, takes no place, and is not followed."""
    ids = single(family)["input_ids"]
    handle = watch(family, sink)
    handle.close()
    handle._closed = False  # as its thread saw it
    assert handle._begin({"input_ids": ids}, ids, None).follower is None
    counted = handle.counters
    assert (counted.samples, counted.lost, counted.records) == (1, 1, 0)
    assert len(handle._ring.take(100)) == 64


def test_the_attention_implementation_and_the_dtype_change(family: TinyFamily, sink: Kept) -> None:
    inputs = single(family)
    rows, sequences = eager_rows(family, inputs)
    with watch(family, sink, layers="all") as handle:
        for implementation in ("eager", "sdpa"):
            family.model.set_attn_implementation(implementation)
            assert torch.equal(generate(family.model, inputs), sequences)
        family.model.double()
        try:
            generate(family.model, inputs.to(torch.float64))
        finally:
            family.model.float()
        assert handle.flush()
    assert len(sink.records) == 3
    for record in sink.records:
        assert close(record.mean, expected(rows[:, 0, 0], record.prompt_tokens)["mean"])


@pytest.fixture
def one_thread() -> Iterator[None]:
    """torch's own threads do not survive a fork."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.usefixtures("one_thread")
def test_a_process_that_forks(family: TinyFamily, sink: Kept) -> None:
    """Also while the parent has a request under way, and another of its threads generates."""
    inputs = single(family)
    before = said(family.model, inputs)

    def child() -> None:
        signal.alarm(60)  # rather than wait for ever
        assert same(said(family.model, inputs), before)
        assert handle.flush(10)
        assert (handle.counters.samples, handle.counters.records) == (1, 1)
        token = kept.logits[:, -1:].argmax(-1)
        family.model(input_ids=token, past_key_values=kept.past_key_values)  # a request of the parent
        assert handle.counters.samples == 1
        handle.close()
        assert handle.counters.records == 1

    with watch(family, sink) as handle, torch.no_grad():
        kept = family.model(**inputs)
        worker = threading.Thread(target=lambda: [said(family.model, inputs) for _ in range(20)])
        worker.start()
        pid = os.fork()
        if pid == 0:
            try:
                child()
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        assert status == 0
        worker.join()
    assert handle.counters.samples == handle.counters.records == len(sink.records) == 21


SCRIPT = """
import atexit, logging, sys, time
sys.path.insert(0, {tests!r})
from families import FAMILIES
from test_capture import generate, single
import vea_sdk as vea

class Prints:
    def write(self, record): print(record.request, record.finished, flush=True)
    def close(self): print("closed", flush=True)

class Blocks(Prints):
    def write(self, record): time.sleep(60)

logging.basicConfig(stream=sys.stdout)
atexit.register(lambda: print("seconds", time.monotonic() - over, flush=True))
family = FAMILIES["llava"]()
inputs = single(family)
one = vea.monitor(family.model, sample_rate=1.0, layers=[1], sinks=[Prints()])
other = vea.monitor(family.model, sample_rate=1.0, layers=[1], sinks=[Blocks()])
with one.request("first"):
    generate(family.model, inputs)
for request in ("second", "third"):
    one.request(request).__enter__()  # under way when the interpreter ends
    kept = family.model(**inputs)
over = time.monotonic()
"""


def test_records_in_flight_at_the_end_of_the_interpreter() -> None:
    """They are flushed within two seconds, or counted as lost."""
    code = SCRIPT.format(tests=str(Path(__file__).parent))
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("closed") == 1
    assert re.findall(r"^(\w+ (?:ended|cut))", done.stdout, re.MULTILINE) == [
        "first ended",
        "second ended",
        "third cut",
    ]
    assert "3 records were not handed over" in done.stdout
    assert float(done.stdout.split("seconds ")[1].split()[0]) < 2.5
