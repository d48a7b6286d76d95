"""Records, alerts and a monitor's own counters to Prometheus, through prometheus_client."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Protocol, get_args
from weakref import WeakKeyDictionary

from vea_sdk.monitor.alerts import Alert, Kind
from vea_sdk.monitor.counters import Counters
from vea_sdk.monitor.record import Record
from vea_sdk.monitor.sinks.optional import needed
from vea_sdk.monitor.statistics import COUNTS, PER_LAYER, STATISTICS

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

_made: WeakKeyDictionary[CollectorRegistry, dict[str, Any]] = WeakKeyDictionary()


class PrometheusSink:
    """Counters and histograms ``vea_*`` in ``registry``, labelled by model; counted once per record.

    Several sinks, of several monitors, may share a registry: they share the metrics, too. In multiprocess mode
    (``PROMETHEUS_MULTIPROC_DIR``, set before prometheus_client is imported) all of them add up over processes.

    Args:
        registry: where the metrics live; by default prometheus_client's own.
        per_layer: also histograms ``vea_layer_*``, labelled by model and layer: 4 per layer.

    Raises:
        InvalidInputError: prometheus_client is not installed.
    """

    def __init__(self, registry: CollectorRegistry | None = None, *, per_layer: bool = False) -> None:
        client = needed("prometheus_client", "prometheus")
        registry = registry or client.REGISTRY
        self._metrics = _made.setdefault(registry, {})
        self._seen: set[str] = set()
        self._per_layer = PER_LAYER if per_layer else ()
        for count in COUNTS:
            self._make(client.Counter, count.name, count.help, ["model"], registry)
        self._make(client.Counter, "alerts", "Alerts opened by a watch.", ["model", "alert"], registry)
        for one in STATISTICS:
            options = {"buckets": one.buckets, "unit": one.unit}
            self._make(client.Histogram, one.name, one.help, ["model"], registry, **options)
        for one, _ in self._per_layer:
            options = {"buckets": one.buckets, "unit": one.unit}
            self._make(
                client.Histogram, f"layer_{one.name}", f"{one.help} Per layer.", ["model", "layer"], registry, **options
            )

    def write(self, record: Record) -> None:
        """Count the request and what is known of it."""
        if record.model not in self._seen:  # a counter that begins at 1 has no increase() that a rule could see
            self._seen.add(record.model)
            for kind in get_args(Kind):
                self._metrics["alerts"].labels(record.model, kind)
        for count in COUNTS:
            self._metrics[count.name].labels(record.model).inc(count.of(record))
        for one in STATISTICS:
            if (value := one.read(record)) is not None:
                self._metrics[one.name].labels(record.model).observe(value)
        for one, figure in self._per_layer:
            for layer in record.per_layer:
                if (value := figure(layer)) is not None:
                    self._metrics[f"layer_{one.name}"].labels(record.model, layer.layer).observe(value)

    def alert(self, alert: Alert) -> None:
        """Count an alert that opens, for ``Watch(on_alert=sink.alert)``; the label ``alert`` has five values."""
        if alert.state == "firing":
            self._metrics["alerts"].labels(alert.model, alert.kind).inc()

    def close(self) -> None:
        """The metrics stay: the last requests are still to be scraped."""

    def _make(self, kind: Any, name: str, text: str, labels: list[str], registry: Any, **options: Any) -> None:
        if name not in self._metrics:
            self._metrics[name] = kind(name, text, labels, namespace="vea", registry=registry, **options)


class _Counting(Protocol):
    @property
    def counters(self) -> Counters: ...


class MonitorCollector:
    """What monitors count themselves, ``vea_monitor_*_total``, read at each scrape: requests, samples, records, drops,
    lost, unread, sink_errors, restarts, copied_bytes; see :class:`~vea_sdk.monitor.counters.Counters`.

        REGISTRY.register(MonitorCollector({"my-model": handle}))

    One collector per registry, and of one process: the multiprocess mode of prometheus_client knows no collectors.

    Args:
        handles: what ``vea.monitor`` returned, by the value of the label ``model``.
    """

    def __init__(self, handles: Mapping[str, _Counting]) -> None:
        self._family = needed("prometheus_client.metrics_core", "prometheus").CounterMetricFamily
        self._handles = dict(handles)

    def collect(self) -> Iterator[Any]:
        """One family per counter."""
        counted = {model: asdict(handle.counters) for model, handle in self._handles.items()}
        for name in Counters.__dataclass_fields__:
            unit = "copied_bytes" if name == "bytes_copied" else name
            family = self._family(f"vea_monitor_{unit}", f"Counted by the monitor: {name}.", labels=["model"])
            for model, counters in counted.items():
                family.add_metric([model], counters[name])
            yield family
