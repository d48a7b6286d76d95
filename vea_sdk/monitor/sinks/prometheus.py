"""Records, alerts and a monitor's own counters to Prometheus, through prometheus_client."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, get_args

from vea_sdk.errors import InvalidInputError
from vea_sdk.monitor.alerts import Alert, Kind
from vea_sdk.monitor.counters import Counters
from vea_sdk.monitor.record import Record
from vea_sdk.monitor.sinks.optional import needed
from vea_sdk.monitor.statistics import COUNTS, PER_LAYER, STATISTICS
from vea_sdk.printable import encodable

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

_making = threading.Lock()


class _Wanted(NamedTuple):
    """A metric as it has to be. ``key``: what this sink calls it; ``options``: of a histogram."""

    key: str
    kind: Any
    help: str
    labels: tuple[str, ...]
    options: Mapping[str, Any] = {}

    @property
    def name(self) -> str:
        """Under which a registry knows it."""
        return "_".join(filter(None, ("vea", self.key, self.options.get("unit"))))

    def is_met_by(self, found: Any) -> bool:
        """By name of the class, for that of a module that was loaded again is another class."""
        return type(found).__name__ == self.kind.__name__ and getattr(found, "_labelnames", None) == self.labels

    def make(self, registry: CollectorRegistry) -> Any:
        try:
            return self.kind(self.key, self.help, self.labels, namespace="vea", registry=registry, **self.options)
        except ValueError as error:
            raise InvalidInputError(
                f"the registry has another metric of the name {self.name!r}: {error}. Unregister that one, or give "
                "registry= one of this sink's own."
            ) from error


class PrometheusSink:
    """Counters and histograms ``vea_*`` in ``registry``, labelled by model; counted once per record.

    The registry is the only memory of what was made: sinks that share one share the metrics, too, whichever module or
    monitor made them, and what was unregistered is made anew with the next record. In multiprocess mode
    (``PROMETHEUS_MULTIPROC_DIR``, set before prometheus_client is imported) all of them add up over processes.

    Args:
        registry: where the metrics live; by default prometheus_client's own.
        per_layer: also histograms ``vea_layer_*``, labelled by model and layer: 4 per layer.

    Raises:
        InvalidInputError: prometheus_client is not installed, or the registry has other metrics of these names.
    """

    def __init__(self, registry: CollectorRegistry | None = None, *, per_layer: bool = False) -> None:
        client = needed("prometheus_client", "prometheus")
        self._registry = client.REGISTRY if registry is None else registry
        self._per_layer = PER_LAYER if per_layer else ()
        self._wanted = [_Wanted(count.name, client.Counter, count.help, ("model",)) for count in COUNTS]
        self._wanted.append(_Wanted("alerts", client.Counter, "Alerts opened by a watch.", ("model", "alert")))
        for one in STATISTICS:
            options = {"buckets": one.buckets, "unit": one.unit}
            self._wanted.append(_Wanted(one.name, client.Histogram, one.help, ("model",), options))
        for one, _ in self._per_layer:
            options, text = {"buckets": one.buckets, "unit": one.unit}, f"{one.help} Per layer."
            self._wanted.append(_Wanted(f"layer_{one.name}", client.Histogram, text, ("model", "layer"), options))
        self._metrics()

    def write(self, record: Record) -> None:
        """Count the request and what is known of it."""
        metrics, model = self._metrics(), encodable(record.model)
        for kind in get_args(Kind):  # a counter that begins at 1 has no increase() that a rule could see
            metrics["alerts"].labels(model, kind)
        for count in COUNTS:
            metrics[count.name].labels(model).inc(count.of(record))
        for one in STATISTICS:
            if (value := one.read(record)) is not None:
                metrics[one.name].labels(model).observe(value)
        for one, figure in self._per_layer:
            for layer in record.per_layer:
                if (value := figure(layer)) is not None:
                    metrics[f"layer_{one.name}"].labels(model, layer.layer).observe(value)

    def alert(self, alert: Alert) -> None:
        """Count an alert that opens, for ``Watch(on_alert=sink.alert)``; the label ``alert`` has six values."""
        if alert.state == "firing":
            self._metrics()["alerts"].labels(encodable(alert.model), alert.kind).inc()

    def close(self) -> None:
        """The metrics stay: the last requests are still to be scraped."""

    def _metrics(self) -> dict[str, Any]:
        """What the registry exports under these names; what is missing there is made, all of it or nothing."""
        found = self._found()
        if len(found) < len(self._wanted):
            with _making:
                found = self._found()
                made: dict[str, Any] = {}
                try:
                    for one in self._wanted:
                        if one.key not in found:
                            made[one.key] = one.make(self._registry)
                except InvalidInputError:
                    for metric in made.values():
                        self._registry.unregister(metric)
                    raise
                found |= made
        return found

    def _found(self) -> dict[str, Any]:
        known = getattr(self._registry, "_names_to_collectors", {})  # no public method finds a collector by its name
        named = ((one, known.get(one.name)) for one in self._wanted)
        return {one.key: metric for one, metric in named if one.is_met_by(metric)}


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
                family.add_metric([encodable(model)], counters[name])
            yield family
