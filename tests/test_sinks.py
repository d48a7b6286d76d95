"""Callback, logging, Prometheus and OpenTelemetry: what goes in is what the other side reads."""

from __future__ import annotations

import bisect
import logging
import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from families import FAMILIES
from PIL import Image
from records import record, stationary

import vea_sdk as vea
from vea_sdk.errors import InvalidInputError
from vea_sdk.monitor.alerts import Alert
from vea_sdk.monitor.counters import Counters
from vea_sdk.monitor.record import Record
from vea_sdk.monitor.sinks import CallbackSink, LoggingSink, MonitorCollector, OpenTelemetrySink, PrometheusSink
from vea_sdk.monitor.statistics import STATISTICS

ALERT = Alert("drift", "firing", "tiny", "peak", 0.5, 0.25, "r7", 7.0)
RESOLVED = Alert("drift", "resolved", "tiny", "peak", 0.1, 0.25, "r9", 9.0)
DROPPED = record(
    3, mass=None, entropy=None, dropped=True, unread="full", agreement=None, border_share=None, trace=None, timings={}
)


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
    assert first.getMessage().startswith("request r1 ended: tiny, 64 image tokens nan=3 image_mass=0.4 ")
    assert first.__dict__["vea"] == record(1, nan=3).to_dict()
    assert second.getMessage().startswith("request r3 dropped")
    assert (third.levelname, fourth.levelname) == ("WARNING", "INFO")
    assert third.getMessage() == "drift firing: tiny, peak 0.5, limit 0.25"


def test_logging_below_its_level_is_silent(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    LoggingSink().write(record(1))
    assert not caplog.records


# --- Prometheus ----------------------------------------------------------------------------------------------


def scraped(registry: Any) -> dict[str, Any]:
    """Families by name, read from the text format by a parser."""
    from prometheus_client import generate_latest
    from prometheus_client.parser import text_string_to_metric_families

    return {family.name: family for family in text_string_to_metric_families(generate_latest(registry).decode())}


def value(families: dict[str, Any], name: str, sample: str, **labels: str) -> float:
    [found] = [s.value for s in families[name].samples if s.name == sample and labels.items() <= s.labels.items()]
    return float(found)


@pytest.fixture
def registry() -> Any:
    return pytest.importorskip("prometheus_client").CollectorRegistry()


def test_prometheus_histograms_hold_the_values(registry: Any) -> None:
    sink = PrometheusSink(registry)
    records = stationary(200, seed=1)
    for one in records:
        sink.write(one)
    families = scraped(registry)
    for statistic in STATISTICS:
        name = "vea_" + "_".join(filter(None, (statistic.name, statistic.unit)))
        values = [v for one in records if (v := statistic.read(one)) is not None]
        assert value(families, name, f"{name}_count", model="tiny") == len(values) == 200
        assert value(families, name, f"{name}_sum", model="tiny") == pytest.approx(math.fsum(values))
        for bound in statistic.buckets:
            below = bisect.bisect_right(sorted(values), bound)
            assert value(families, name, f"{name}_bucket", le=str(float(bound))) == below


def test_prometheus_counts_each_request_once(registry: Any) -> None:
    sink = PrometheusSink(registry)
    for one in (record(1), record(2, nan=5), DROPPED, record(4, finished="failed")):
        sink.write(one)
    sink.alert(ALERT)
    sink.alert(RESOLVED)
    sink.close()
    families = scraped(registry)
    assert value(families, "vea_alerts", "vea_alerts_total", model="tiny", alert="nan") == 0
    for name, count in {"requests": 4, "nan": 1, "dropped": 1, "unread": 1, "failed": 1}.items():
        assert value(families, f"vea_{name}", f"vea_{name}_total", model="tiny") == count
    assert value(families, "vea_alerts", "vea_alerts_total", model="tiny", alert="drift") == 1
    assert value(families, "vea_image_mass", "vea_image_mass_count", model="tiny") == 3  # none of the dropped one


def test_prometheus_labels_are_bounded(registry: Any) -> None:
    sink = PrometheusSink(registry, per_layer=True)
    for one in stationary(50, seed=2):
        sink.write(one)
    families = scraped(registry)
    labels = {name for family in families.values() for sample in family.samples for name in sample.labels}
    assert labels == {"model", "layer", "le", "alert"}
    layers = {s.labels["layer"] for s in families["vea_layer_peak"].samples}
    assert layers == {"2", "3"}
    assert value(families, "vea_layer_peak", "vea_layer_peak_sum", layer="2") == pytest.approx(50 * 0.2)


def test_prometheus_sinks_share_a_registry(registry: Any) -> None:
    PrometheusSink(registry).write(record(1))
    PrometheusSink(registry, per_layer=True).write(record(2, model="other"))
    families = scraped(registry)
    for model in ("tiny", "other"):
        assert value(families, "vea_requests", "vea_requests_total", model=model) == 1


def test_prometheus_reads_what_monitors_count(registry: Any) -> None:
    handles = {
        "a": SimpleNamespace(counters=Counters(samples=3, bytes_copied=900)),
        "b": SimpleNamespace(counters=Counters()),
    }
    registry.register(MonitorCollector(handles))
    handles["b"].counters = Counters(samples=5, lost=1)  # since then
    families = scraped(registry)
    assert len(families) == len(fields(Counters))
    assert value(families, "vea_monitor_samples", "vea_monitor_samples_total", model="a") == 3
    assert value(families, "vea_monitor_samples", "vea_monitor_samples_total", model="b") == 5
    assert value(families, "vea_monitor_lost", "vea_monitor_lost_total", model="b") == 1
    assert value(families, "vea_monitor_copied_bytes", "vea_monitor_copied_bytes_total", model="a") == 900


MULTIPROCESS = """
import os, sys
from records import record
from vea_sdk.monitor.sinks import PrometheusSink
sink = PrometheusSink()
for i in range(2):
    if os.fork() == 0:
        for j in range(10):
            sink.write(record(j, mass=0.25))
        os._exit(0)
for i in range(2):
    os.wait()
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
registry = CollectorRegistry()
MultiProcessCollector(registry)
sys.stdout.write(generate_latest(registry).decode())
"""


def test_prometheus_adds_up_over_processes(tmp_path: Path) -> None:
    pytest.importorskip("prometheus_client")
    search = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    env = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "PYTHONPATH": search}
    done = subprocess.run([sys.executable, "-c", MULTIPROCESS], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    assert 'vea_requests_total{model="tiny"} 20.0' in done.stdout
    assert 'vea_image_mass_sum{model="tiny"} 5.0' in done.stdout


# --- OpenTelemetry -------------------------------------------------------------------------------------------


@pytest.fixture
def otel() -> Any:
    """A sink, the spans that it exported, and a reader of its metrics by name."""
    pytest.importorskip("opentelemetry.sdk")
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    spans, reader, tracers = InMemorySpanExporter(), InMemoryMetricReader(), TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(spans))

    def metrics() -> dict[str, Any]:
        [resource] = reader.get_metrics_data().resource_metrics
        return {m.name: m for scope in resource.scope_metrics for m in scope.metrics}

    meters = MeterProvider([reader])
    yield OpenTelemetrySink(tracers, meters), spans.get_finished_spans, metrics, tracers.get_tracer("server")
    tracers.shutdown()
    meters.shutdown()


def test_otel_span_is_a_child_of_the_request(otel: Any) -> None:
    sink, finished, _, tracer = otel
    with tracer.start_as_current_span("POST /chat") as server:
        sink.begin("r1")
    sink.write(record(1))  # after the request, without a current span
    sink.write(record(2))  # never begun
    parent, child, orphan = finished()
    assert parent.context == server.get_span_context()
    assert (child.name, child.parent, child.context.trace_id) == (
        "generate_content tiny",
        server.get_span_context(),
        server.get_span_context().trace_id,
    )
    assert orphan.parent is None
    assert child.end_time == 1_000_001 * 10**9
    assert child.end_time - child.start_time == 250_000_000


def test_otel_finds_the_span_of_a_monitored_request(otel: Any) -> None:
    """On another thread than the one that writes, and with ids of the monitor's own where the request has none."""
    sink, finished, _, tracer = otel
    family = FAMILIES["llava"]()
    inputs = family.inputs(Image.new("RGB", (60, 40), "teal"))
    with vea.monitor(family.model, sample_rate=1.0, layers=[1, 3], sinks=[sink]) as handle:
        with tracer.start_as_current_span("first") as first, handle.request("named"):
            family.model.generate(**inputs, max_new_tokens=3)
        with tracer.start_as_current_span("second") as second:
            family.model.generate(**inputs, max_new_tokens=3)
        assert handle.flush(10)
    children = [span for span in finished() if span.name.startswith("generate_content")]
    assert [span.parent for span in children] == [first.get_span_context(), second.get_span_context()]
    assert children[0].attributes["gen_ai.response.id"] == "named"


def test_otel_begin_that_fails_is_counted_and_harmless() -> None:
    family = FAMILIES["llava"]()
    inputs = family.inputs(Image.new("RGB", (60, 40), "teal"))
    plain = family.model.generate(**inputs, max_new_tokens=3)

    class Broken(CallbackSink):
        def begin(self, request: str) -> None:
            raise RuntimeError(request)

    got: list[Record] = []
    with vea.monitor(family.model, sample_rate=1.0, layers=[1, 3], sinks=[Broken(got.append)]) as handle:
        assert family.model.generate(**inputs, max_new_tokens=3).equal(plain)
        assert handle.flush(10)
        assert handle.counters.sink_errors == 1
    assert len(got) == 1


def test_otel_span_attributes(otel: Any) -> None:
    names = pytest.importorskip("opentelemetry.semconv._incubating.attributes.gen_ai_attributes")
    sink, finished, _, _ = otel
    sink.write(record(1))
    [span] = finished()
    found = dict(span.attributes)
    assert found[names.GEN_AI_OPERATION_NAME] == names.GenAiOperationNameValues.GENERATE_CONTENT.value
    assert found[names.GEN_AI_PROVIDER_NAME] == "transformers"
    assert (found[names.GEN_AI_REQUEST_MODEL], found[names.GEN_AI_RESPONSE_ID]) == ("tiny", "r1")
    assert (found[names.GEN_AI_USAGE_INPUT_TOKENS], found[names.GEN_AI_USAGE_OUTPUT_TOKENS]) == (80, 8)
    conventions = {text for text in vars(names).values() if isinstance(text, str)}
    assert {name for name in found if not name.startswith("vea.")} <= conventions
    assert (found["vea.image_mass"], found["vea.layer.image_mass"], found["vea.layers"]) == (0.4, (0.4, 0.4), (2, 3))
    assert found["vea.entropy_ratio"] == pytest.approx(3 / math.log(64))


def test_otel_marks_what_failed_and_leaves_out_what_is_undefined(otel: Any) -> None:
    sink, finished, metrics, _ = otel
    sink.write(record(1, mass=None, finished="failed"))
    [span] = finished()
    assert not span.status.is_ok
    assert span.attributes["error.type"] == "_OTHER"
    assert not {"vea.image_mass", "vea.layer.image_mass"} & set(span.attributes)
    assert "vea.image_mass" not in metrics()


def test_otel_metrics(otel: Any) -> None:
    names = pytest.importorskip("opentelemetry.semconv._incubating.metrics.gen_ai_metrics")
    sink, _, metrics, _ = otel
    records = stationary(100, seed=3)
    for one in records:
        sink.write(one)
    sink.alert(ALERT)
    sink.alert(RESOLVED)
    found = metrics()
    [mass] = found["vea.image_mass"].data.data_points
    assert mass.count == 100
    assert mass.sum == pytest.approx(math.fsum(one.mean.image_mass or 0 for one in records))
    assert tuple(mass.explicit_bounds) == STATISTICS[0].buckets
    [seconds] = found[names.GEN_AI_SERVER_REQUEST_DURATION].data.data_points
    assert (seconds.count, seconds.sum, seconds.explicit_bounds[0]) == (100, pytest.approx(25.0), 0.01)
    [first] = found[names.GEN_AI_SERVER_TIME_TO_FIRST_TOKEN].data.data_points
    assert first.sum == pytest.approx(5.0)
    tokens = {p.attributes["gen_ai.token.type"]: p for p in found[names.GEN_AI_CLIENT_TOKEN_USAGE].data.data_points}
    assert {kind: point.sum for kind, point in tokens.items()} == {"input": 8000, "output": 800}
    [requests], [alerts] = (found[name].data.data_points for name in ("vea.requests", "vea.alerts"))
    assert (requests.value, alerts.value, alerts.attributes["vea.alert"]) == (100, 1, "drift")


def test_otel_remembers_a_bounded_number_of_requests(otel: Any) -> None:
    sink, finished, _, tracer = otel
    with tracer.start_as_current_span("POST /chat"):
        for i in range(5000):
            sink.begin(f"r{i}")
    sink.write(record(0))
    sink.write(record(4999))
    _, forgotten, known = finished()
    assert forgotten.parent is None
    assert known.parent is not None


@pytest.mark.parametrize(
    ("make", "module", "extra"),
    [(PrometheusSink, "prometheus_client", "prometheus"), (OpenTelemetrySink, "opentelemetry.trace", "otel")],
)
def test_an_absent_package_is_named(
    make: Callable[[], Any], module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InvalidInputError, match=rf"pip install 'vea-sdk\[{extra}\]'"):
        make()
