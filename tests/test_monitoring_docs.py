"""The dashboard and the alert rules of docs/monitoring, against the metrics that are really exported."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from records import record

from vea_sdk.monitor.alerts import Alert
from vea_sdk.monitor.counters import Counters
from vea_sdk.monitor.sinks import MonitorCollector, PrometheusSink

FOLDER = Path(__file__).parents[1] / "docs" / "monitoring"
PAGE = FOLDER.with_suffix(".md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def exported() -> dict[str, set[str]]:
    """Sample names and their labels, from a scrape."""
    client = pytest.importorskip("prometheus_client")
    from prometheus_client.parser import text_string_to_metric_families

    registry = client.CollectorRegistry()
    sink = PrometheusSink(registry, per_layer=True)
    sink.write(record(0))
    registry.register(MonitorCollector({"tiny": SimpleNamespace(counters=Counters())}))
    sink.alert(Alert("nan", "firing", "tiny", "nan", 1, 0, "r0", 0.0))
    families = text_string_to_metric_families(client.generate_latest(registry).decode())
    samples = [sample for family in families for sample in family.samples]
    return {sample.name: set(sample.labels) for sample in samples if not sample.name.endswith("_created")}


def dashboard() -> Any:
    return json.loads((FOLDER / "grafana.json").read_text())


def dashboard_queries() -> list[str]:
    return [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]


def rules() -> list[dict[str, Any]]:
    yaml = pytest.importorskip("yaml")
    [group] = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"]
    return list(group["rules"])


def metrics(query: str) -> set[str]:
    return set(re.findall(r"\bvea_\w+", query))


def test_the_dashboard_shows_every_metric_and_no_other(exported: dict[str, set[str]]) -> None:
    shown = set().union(*map(metrics, dashboard_queries()))
    assert shown <= set(exported)
    families = {re.sub(r"_(total|bucket|sum|count)$", "", name) for name in exported}
    assert {re.sub(r"_(total|bucket|sum|count)$", "", name) for name in shown} == families
    assert metrics(json.dumps(dashboard()["templating"])) <= set(exported)


def test_the_page_names_every_metric(exported: dict[str, set[str]]) -> None:
    table = PAGE.split("## Metrics")[1].split("##")[0]
    named = {f"vea_{name}" for name in re.findall(r"`(\w+)(?:\{\w+\})?`", table)}
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in exported} <= named


def test_the_page_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("prometheus_client")
    pytest.importorskip("opentelemetry")
    monkeypatch.chdir(tmp_path)
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        names: dict[str, Any] = {}
        exec(block, names)
        for sink in names["sinks"]:
            sink.write(record(0))
            sink.close()


def test_the_page_shows_the_lines_that_the_servers_have() -> None:
    lines = re.findall(r"^    (monitor = .*|.*make_asgi_app.*)$", PAGE, re.MULTILINE)
    assert len(lines) == 2
    for script, model in (("server.py", "model"), ("transformers_serve.py", "loaded.model")):
        text = (FOLDER / script).read_text(encoding="utf-8")
        assert lines[0].replace("monitor(model", f"monitor({model}") in text
        assert lines[1].removeprefix("app") in text


def test_the_dashboard_is_laid_out_without_overlap() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (place["x"] + i, place["y"] + j)
        for place in (panel["gridPos"] for panel in panels)
        for i in range(place["w"])
        for j in range(place["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24


def test_queries_group_by_labels_that_exist(exported: dict[str, set[str]]) -> None:
    for query in [*dashboard_queries(), *(rule["expr"] for rule in rules())]:
        known = set().union(*(exported[name] for name in metrics(query)))
        for labels in re.findall(r"by \(([^)]*)\)", query):
            assert set(re.split(r", *", labels)) <= known, query


def test_the_rules_use_exported_metrics(exported: dict[str, set[str]]) -> None:
    found = rules()
    assert len({rule["alert"] for rule in found}) == len(found)
    for rule in found:
        assert metrics(rule["expr"])
        assert metrics(rule["expr"]) <= set(exported)
        assert rule["labels"]["severity"] in ("info", "warning", "critical")
        assert rule["annotations"]["summary"]


def promtool(*arguments: object, text: str | None = None) -> None:
    command = shutil.which("promtool")
    if command is None:
        pytest.skip("promtool (package prometheus) is not installed")
    done = subprocess.run([command, *map(str, arguments)], input=text, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_accepts_rules_and_queries(tmp_path: Path) -> None:
    queries = [re.sub(r"\$__(rate_interval|range)", "5m", query) for query in dashboard_queries()]
    recorded = [{"record": f"panel:{i}", "expr": query} for i, query in enumerate(queries)]
    panels = tmp_path / "panels.yml"
    panels.write_text(json.dumps({"groups": [{"name": "panels", "rules": recorded}]}))  # JSON is YAML
    promtool("check", "rules", FOLDER / "alerts.yml", panels)


def test_promtool_accepts_the_metrics() -> None:
    client = pytest.importorskip("prometheus_client")
    registry = client.CollectorRegistry()
    PrometheusSink(registry, per_layer=True).write(record(0))
    promtool("check", "metrics", text=client.generate_latest(registry).decode())


def test_promtool_fires_the_rules_when_it_should(tmp_path: Path) -> None:
    """On the third of three days all attention leaves the image; within an hour there are NaN, and dropped requests."""
    steady, moved = "0+100x432", "0x287 0+100x144"
    series = {
        'vea_image_mass_bucket{model="m",le="0.1"}': moved,
        'vea_image_mass_bucket{model="m",le="0.5"}': steady,
        'vea_image_mass_bucket{model="m",le="+Inf"}': steady,
        'vea_image_mass_bucket{model="calm",le="0.5"}': steady,
        'vea_image_mass_bucket{model="calm",le="+Inf"}': steady,
    }
    minutes = {
        'vea_nan_total{model="m"}': "0x20 1x40",
        'vea_requests_total{model="m"}': "0+10x60",
        'vea_dropped_total{model="m"}': "0x20 0+2x40",
    }

    def fired(rule: str, at: str, expected: bool) -> dict[str, Any]:
        [found] = [one for one in rules() if one["alert"] == rule]
        labels = {"model": "m", "severity": found["labels"]["severity"]}
        return {"eval_time": at, "alertname": rule, "exp_alerts": [{"exp_labels": labels}] if expected else []}

    def case(interval: str, values: dict[str, str], *expected: dict[str, Any]) -> dict[str, Any]:
        inputs = [{"series": name, "values": points} for name, points in values.items()]
        return {"interval": interval, "input_series": inputs, "alert_rule_test": list(expected)}

    bare = [{name: rule[name] for name in ("alert", "expr", "for", "labels") if name in rule} for rule in rules()]
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "vea", "rules": bare}]}))
    tests = [
        case("10m", series, fired("VeaImageIgnored", "47h", False), fired("VeaImageIgnored", "52h", True)),
        case(
            "1m",
            minutes,
            fired("VeaNaN", "15m", False),
            fired("VeaNaN", "25m", True),
            fired("VeaNaN", "45m", False),
            fired("VeaDropped", "20m", False),
            fired("VeaDropped", "50m", True),
        ),
    ]
    (tmp_path / "test.yml").write_text(json.dumps({"rule_files": ["rules.yml"], "tests": tests}))
    promtool("test", "rules", tmp_path / "test.yml")
