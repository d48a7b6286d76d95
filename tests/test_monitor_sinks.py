"""Callback and logging; what all sinks have in common."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any

import pytest
from records import ALERT, DROPPED, RESOLVED, record

from vea_sdk.errors import InvalidInputError
from vea_sdk.monitor.record import Record
from vea_sdk.monitor.sinks import CallbackSink, LoggingSink, MonitorCollector, OpenTelemetrySink, PrometheusSink
from vea_sdk.monitor.statistics import outcome


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
