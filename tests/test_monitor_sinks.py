"""Callback and logging; what all sinks have in common."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from families import FAMILIES
from PIL import Image
from records import ALERT, DROPPED, RESOLVED, record

import vea_sdk as vea
from vea_sdk.errors import InvalidInputError
from vea_sdk.monitor.record import Record
from vea_sdk.monitor.sampling import sampled
from vea_sdk.monitor.sinks import (
    CallbackSink,
    JsonLinesSink,
    LoggingSink,
    MonitorCollector,
    OpenTelemetrySink,
    PrometheusSink,
)
from vea_sdk.monitor.statistics import outcome
from vea_sdk.monitor.tail import Tail


def test_callback() -> None:
    got: list[Record] = []
    sink = CallbackSink(got.append)
    sink.write(record(1))
    sink.close()
    assert got == [record(1)]


def test_logging(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    sink = LoggingSink("own.name")
    sink.write(record(1, nan=3))
    sink.write(DROPPED)
    sink.alert(ALERT)
    sink.alert(RESOLVED)
    first, second, third, fourth = caplog.records
    assert first.name == "own.name"
    assert first.getMessage().startswith("request r1 NaN 3: tiny, 64 image tokens image_mass=0.4 ")
    assert first.__dict__["vea"] == record(1, nan=3).to_dict()
    assert second.getMessage() == "request r3 dropped: tiny, 64 image tokens full"
    assert (third.levelname, fourth.levelname) == ("WARNING", "INFO")
    assert third.getMessage() == "drift firing: tiny, peak 0.5, limit 0.25"


HOSTILE = {  # what came in, what may be shown of it
    "r1\nrequest r2 ended: tiny": r"r1\nrequest r2 ended: tiny",
    "r1\r\nERROR": r"r1\r\nERROR",
    "\x1b]0;title\x07": r"\x1b]0;title\x07",
    "\x1b[2J\x1b[31m": r"\x1b[2J\x1b[31m",
    "\x9b31m": r"\x9b31m",  # the same in one character
    "a\x00b\x08\x7f\t": r"a\x00b\x08\x7f\t",
    "\u202egnp.exe": r"\u202egnp.exe",
    "one\u2028two\x85three": r"one\u2028two\x85three",
    "lone \ud800": r"lone \ud800",
    "naïve 日本語 \u200fעברית 👩\u200d🔬\u00a0!": "naïve 日本語 \u200fעברית 👩\u200d🔬\u00a0!",
}


@pytest.mark.parametrize("text", HOSTILE)
def test_logging_shows_what_others_wrote_and_executes_nothing(caplog: pytest.LogCaptureFixture, text: str) -> None:
    caplog.set_level(logging.INFO)
    sink = LoggingSink()
    sink.write(record(1, request=text))
    sink.write(record(1, model=text))
    sink.write(record(1, finished=text))
    sink.write(record(1, unread=text))
    sink.alert(replace(ALERT, model=text))
    assert len(caplog.records) == 5
    for one in caplog.records:
        assert HOSTILE[text] in one.getMessage()
        assert len(one.getMessage().splitlines()) == 1
        one.getMessage().encode()
    assert caplog.records[0].__dict__["vea"]["request"] == text


def ids() -> list[str]:
    """Three with lone surrogates: by hand, half of a pair, and of bytes that are no UTF-8."""
    return ["\ud800", "half \udc00 of a pair", os.fsdecode(b"r\xff\xfe")]


def test_ids_that_utf8_has_not_are_counted_and_recorded(tmp_path: Path) -> None:
    registry = pytest.importorskip("prometheus_client").CollectorRegistry()
    family = FAMILIES["llava"]()
    inputs = family.inputs(Image.new("RGB", (60, 40), "teal"))
    got: list[Record] = []
    file = JsonLinesSink(tmp_path / "records.jsonl")
    sinks = [CallbackSink(got.append), file, LoggingSink(), PrometheusSink(registry)]
    with vea.monitor(family.model, sample_rate=1.0, layers=[1, 3], sinks=sinks) as handle:
        for one in ids():
            with handle.request(one):
                family.model.generate(**inputs, max_new_tokens=2)
    assert [one.request for one in got] == ids()
    assert [one.request for one in Tail(file.path).poll()] == ids()
    counted = handle.counters
    assert (counted.requests, counted.samples, counted.records, counted.sink_errors) == (3, 3, 3, 0)
    assert registry.get_sample_value("vea_requests_total", {"model": got[0].model}) == 3


def test_sampling_of_ids_that_utf8_has_not_is_a_hash_like_that_of_others() -> None:
    ids = [f"{n}\udcff" for n in range(20_000)]
    shares = [sum(sampled(one, rate) for one in ids) / len(ids) for rate in (0.0, 0.1, 0.5, 1.0)]
    assert shares == pytest.approx([0, 0.1, 0.5, 1], abs=0.015)
    assert all(sampled(one, 0.5) for one in ids if sampled(one, 0.1))


def test_logging_below_its_level_is_silent(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    LoggingSink().write(record(1))
    assert not caplog.records


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({}, "ended"),
        ({"nan": 2}, "NaN 2"),
        ({"unread": "why"}, "unread"),
        ({"finished": "failed", "unread": "why"}, "failed"),
        ({"finished": "cut", "nan": 2}, "cut"),
        ({"dropped": True, "unread": "full"}, "dropped"),
    ],
)
def test_outcome(fields: dict[str, Any], word: str) -> None:
    assert outcome(record(0, **fields)) == word


@pytest.mark.parametrize(
    ("make", "module", "extra"),
    [
        (PrometheusSink, "prometheus_client", "prometheus"),
        (lambda: MonitorCollector({}), "prometheus_client.metrics_core", "prometheus"),
        (OpenTelemetrySink, "opentelemetry.trace", "otel"),
    ],
)
def test_an_absent_package_is_named(
    make: Callable[[], Any], module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InvalidInputError, match=rf"pip install 'vea-sdk\[{extra}\]'"):
        make()
