"""Prometheus: what a real parser reads from a scrape is what went in."""

from __future__ import annotations

import bisect
import importlib
import math
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from records import ALERT, DROPPED, RESOLVED, record, stationary

from vea_sdk.errors import InvalidInputError
from vea_sdk.monitor.counters import Counters
from vea_sdk.monitor.sinks import MonitorCollector, PrometheusSink
from vea_sdk.monitor.statistics import STATISTICS


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


def requests(registry: Any) -> float:
    return value(scraped(registry), "vea_requests", "vea_requests_total", model="tiny")


def empty(registry: Any, sink: PrometheusSink) -> PrometheusSink:
    for collector in list(registry._collector_to_names):
        registry.unregister(collector)
    return sink


def empty_and_make(registry: Any, sink: PrometheusSink) -> PrometheusSink:
    empty(registry, sink)
    return PrometheusSink(registry)


def reload_the_module(registry: Any, sink: PrometheusSink) -> Any:
    loaded = importlib.reload(importlib.import_module("vea_sdk.monitor.sinks.prometheus"))
    return loaded.PrometheusSink(registry)


def unregister_one(registry: Any, sink: PrometheusSink) -> PrometheusSink:
    registry.unregister(registry._names_to_collectors["vea_requests_total"])
    return sink


@pytest.mark.parametrize(
    ("happens", "counted"), [(empty, 1), (empty_and_make, 1), (reload_the_module, 2), (unregister_one, 1)]
)
def test_prometheus_exports_whatever_happens_to_the_registry(registry: Any, happens: Any, counted: int) -> None:
    sink = PrometheusSink(registry)
    sink.write(record(0))
    sink = happens(registry, sink)
    sink.write(record(1))
    sink.alert(ALERT)
    families = scraped(registry)
    assert requests(registry) == counted
    assert value(families, "vea_alerts", "vea_alerts_total", model="tiny", alert="drift") == 1
    assert value(families, "vea_alerts", "vea_alerts_total", model="tiny", alert="nan") == 0


@pytest.mark.parametrize(
    ("kind", "name", "labels"),
    [
        ("Gauge", "vea_requests", ["model"]),
        ("Counter", "vea_requests", ["model", "replica"]),
        ("Histogram", "vea_peak", []),
        ("Counter", "vea_request_seconds", ["model"]),
        ("Gauge", "vea_image_mass_bucket", ["model"]),
    ],
)
def test_prometheus_names_a_metric_that_is_in_its_place(registry: Any, kind: str, name: str, labels: list[str]) -> None:
    import prometheus_client

    other = getattr(prometheus_client, kind)(name, "Somebody's.", labels, registry=registry)
    before = set(registry._names_to_collectors)
    with pytest.raises(
        InvalidInputError, match=rf"(?s)another metric of the name '{name.removesuffix('_bucket')}'.*registry="
    ):
        PrometheusSink(registry)
    assert set(registry._names_to_collectors) == before
    registry.unregister(other)
    PrometheusSink(registry).write(record(0))
    assert requests(registry) == 1


def test_prometheus_exports_names_that_utf8_has_not(registry: Any) -> None:
    """A model's folder may be named in bytes that are no UTF-8; one such label would end every scrape."""
    sink = PrometheusSink(registry)
    sink.write(record(0, model=os.fsdecode(b"/models/\xff")))
    assert value(scraped(registry), "vea_requests", "vea_requests_total", model="/models/\\udcff") == 1


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
    done = subprocess.run([sys.executable, "-P", "-c", MULTIPROCESS], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    assert 'vea_requests_total{model="tiny"} 20.0' in done.stdout
    assert 'vea_image_mass_sum{model="tiny"} 5.0' in done.stdout
