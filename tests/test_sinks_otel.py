"""OpenTelemetry: spans under the request that caused them, names of the GenAI conventions, metrics."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from families import FAMILIES
from PIL import Image
from records import ALERT, RESOLVED, record, stationary

import vea_sdk as vea
from vea_sdk.monitor.record import Record
from vea_sdk.monitor.sinks import CallbackSink, OpenTelemetrySink
from vea_sdk.monitor.statistics import STATISTICS


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


@pytest.mark.parametrize("text", ["\ud800", "/models/\udcff", "half \udc00"])
def test_otel_exports_what_utf8_has_not(otel: Any, text: str) -> None:
    """An exporter writes UTF-8, and one such text would cost it everything that is sent together."""
    sink, finished, metrics, _ = otel
    sink.write(record(1, request=text, model=text, unread=text))
    sink.alert(replace(ALERT, model=text))
    [span] = finished()
    span.to_json().encode()
    points = [point for metric in metrics().values() for point in metric.data.data_points]
    texts = [span.name, *span.attributes.values(), *(value for point in points for value in point.attributes.values())]
    escaped = ascii(text)[1:-1]
    assert [str(one).encode() for one in texts].count(escaped.encode()) > 3
    assert span.attributes["gen_ai.response.id"] == escaped


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
