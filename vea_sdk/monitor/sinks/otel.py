"""Records and alerts to OpenTelemetry: a span per request, and metrics."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from vea_sdk.monitor.alerts import Alert
from vea_sdk.monitor.record import Record
from vea_sdk.monitor.sinks.optional import needed
from vea_sdk.monitor.statistics import COUNTS, PER_LAYER, STATISTICS
from vea_sdk.printable import encodable

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

OPERATION = "generate_content"  # GenAI conventions' name for generation from several modalities
_TOKENS = tuple(4**i for i in range(14))  # boundaries that the conventions advise
_SECONDS = tuple(0.01 * 2**i for i in range(14))
_FIRST = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_UNITS = {"": "1", "nats": "nat", "seconds": "s"}
_REMEMBERED = 4096  # requests whose span is awaited; beyond it the oldest becomes a span without parent


class OpenTelemetrySink:
    """A span ``generate_content {model}`` per record, a child of the span that was current when the request began.

    Records are written after the request, on another thread, so the span is made then, with the times the request
    had. :meth:`begin`, called on the request's own thread, notes the context it belongs to; without it the span has
    no parent. Names follow the GenAI semantic conventions (``gen_ai.*``), own ones begin with ``vea.``.

    Metrics of the sampled requests: ``gen_ai.server.request.duration``, ``gen_ai.server.time_to_first_token``,
    ``gen_ai.client.token.usage``, a histogram ``vea.<statistic>`` each, and counters such as ``vea.requests``.

    Args:
        tracer_provider, meter_provider: by default the global ones.
        provider: value of ``gen_ai.provider.name``.

    Raises:
        InvalidInputError: the OpenTelemetry API is not installed.
    """

    def __init__(
        self,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        *,
        provider: str = "transformers",
    ) -> None:
        self._trace = needed("opentelemetry.trace", "otel")
        self._context = needed("opentelemetry.context", "otel")
        self._provider = provider
        self._begun: OrderedDict[str, Any] = OrderedDict()
        self._tracer = self._trace.get_tracer("vea_sdk", tracer_provider=tracer_provider)
        meter = needed("opentelemetry.metrics", "otel").get_meter("vea_sdk", meter_provider=meter_provider)
        self._counters = {one.name: meter.create_counter(f"vea.{one.name}", "1", one.help) for one in COUNTS}
        self._alerts = meter.create_counter("vea.alerts")
        self._seconds = {
            timing: meter.create_histogram(f"gen_ai.server.{name}", "s", explicit_bucket_boundaries_advisory=bounds)
            for timing, name, bounds in (
                ("total", "request.duration", _SECONDS),
                ("prefill", "time_to_first_token", _FIRST),
            )
        }
        self._tokens = meter.create_histogram(
            "gen_ai.client.token.usage", "{token}", explicit_bucket_boundaries_advisory=_TOKENS
        )
        self._histograms = {
            one.name: meter.create_histogram(
                f"vea.{one.name}", _UNITS[one.unit], one.help, explicit_bucket_boundaries_advisory=one.buckets
            )
            for one in STATISTICS
        }

    def begin(self, request: str) -> None:
        """Note the current context as that of ``request``."""
        self._begun[request] = self._context.get_current()
        if len(self._begun) > _REMEMBERED:
            self._begun.popitem(last=False)

    def write(self, record: Record) -> None:
        """Make the span and record the metrics, in the context of the request, so that exemplars find it."""
        labels = self._labels(record)
        parent = self._begun.pop(record.request, None) or self._context.Context()
        end = round(record.time * 1e9)
        span = self._tracer.start_span(
            f"{OPERATION} {labels['gen_ai.request.model']}",
            context=parent,
            kind=self._trace.SpanKind.INTERNAL,
            attributes=labels | _attributes(record),
            start_time=end - round(record.timings.get("total", 0.0) * 1e9),
        )
        if record.finished == "failed":
            span.set_status(self._trace.StatusCode.ERROR)
        span.end(end)
        self._measure(record, labels, self._trace.set_span_in_context(span, parent))

    def alert(self, alert: Alert) -> None:
        """Count an alert that opens, for ``Watch(on_alert=sink.alert)``."""
        if alert.state == "firing":
            self._alerts.add(1, {"gen_ai.request.model": encodable(alert.model), "vea.alert": alert.kind})

    def close(self) -> None:
        """The providers are the caller's, who flushes them."""

    def _labels(self, record: Record) -> dict[str, Any]:
        labels = {
            "gen_ai.operation.name": OPERATION,
            "gen_ai.provider.name": self._provider,
            "gen_ai.request.model": encodable(record.model),
        }
        return labels | ({"error.type": "_OTHER"} if record.finished == "failed" else {})

    def _measure(self, record: Record, labels: dict[str, Any], context: Any) -> None:
        for count in COUNTS:
            if count.of(record):
                self._counters[count.name].add(1, labels, context)
        for name, seconds in self._seconds.items():
            if name in record.timings:
                seconds.record(record.timings[name], labels, context)
        for kind, tokens in (("input", record.prompt_tokens), ("output", record.generated_tokens)):
            self._tokens.record(tokens, labels | {"gen_ai.token.type": kind}, context)
        for one in STATISTICS:
            if (value := one.read(record)) is not None:
                self._histograms[one.name].record(value, labels, context)


def _attributes(record: Record) -> dict[str, Any]:
    """The span's attributes; what is undefined is left out."""
    found: dict[str, Any] = {
        "gen_ai.response.id": record.request,
        "gen_ai.usage.input_tokens": record.prompt_tokens,
        "gen_ai.usage.output_tokens": record.generated_tokens,
        "vea.adapter": record.adapter,
        "vea.layers": list(record.layers),
        "vea.images": record.images,
        "vea.image_tokens": record.image_tokens,
        "vea.spikes": record.spikes,
        "vea.nan": record.nan,
        "vea.dropped": record.dropped,
        "vea.unread": record.unread,
        "vea.finished": record.finished,
    }
    found |= {f"vea.{one.name}": one.read(record) for one in STATISTICS}
    for one, figure in PER_LAYER:
        values = [figure(layer) for layer in record.per_layer]
        found[f"vea.layer.{one.name}"] = values if values and None not in values else None
    return {
        name: encodable(value) if isinstance(value, str) else value
        for name, value in found.items()
        if value is not None
    }
