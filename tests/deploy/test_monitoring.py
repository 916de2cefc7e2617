"""Prometheus and Grafana: each metric that they name is one that the server exports."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from typing import Any

import httpx2
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.deploy.metric_names import Used, grouped_labels, metrics_of
from tests.deploy.settings_used import ROOT
from tests.server.serving import NUM_SLOTS

DEPLOY = ROOT / "deploy"
DASHBOARD: dict[str, Any] = json.loads(
    (DEPLOY / "grafana" / "dashboards" / "streamingllm.json").read_text()
)
ALERTS = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
OF_THE_SCRAPE = {"instance", "job"}  # labels that Prometheus adds


def panel_queries() -> dict[str, list[str]]:
    return {p["title"]: [t["expr"] for t in p["targets"]] for p in DASHBOARD["panels"]}


def queries() -> list[str]:
    ours = [query for found in panel_queries().values() for query in found]
    return ours + [rule["expr"] for group in ALERTS["groups"] for rule in group["rules"]]


@pytest.fixture
def exported(server: str) -> dict[str, set[str]]:
    """Labels of each sample that a server exports after turns of more sessions than slots."""
    body = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
    url = f"{server}/v1/chat/completions"
    for number in range(NUM_SLOTS + 2):
        headers = {"x-session-id": f"monitored-{number}"}
        answer = httpx2.post(url, json=body, headers=headers, timeout=60)
        assert answer.status_code == 200
    text = httpx2.get(f"{server}/metrics").text
    found: dict[str, set[str]] = {"up": set()}  # of Prometheus itself
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def test_names_are_found_in_queries() -> None:
    query = 'sum by (le, x) (rate(a_bucket{b="c d{}", e=~"$f"}[5m])) / on (g) h > 0.5 and i:j == 1'
    assert metrics_of(query) == {
        Used("a_bucket", frozenset("be")), Used("h", frozenset()), Used("i:j", frozenset())
    }  # fmt: skip
    assert grouped_labels(query) == {"le", "x", "g"}


def test_each_metric_is_one_that_the_server_exports(exported: dict[str, set[str]]) -> None:
    for query in queries():
        used = metrics_of(query)
        assert used, query
        for metric in used:
            assert metric.name in exported, query
            labels = exported[metric.name] | OF_THE_SCRAPE
            assert metric.labels <= labels, query
            assert grouped_labels(query) <= labels, query


def test_all_metrics_of_the_server_are_on_the_dashboard(exported: dict[str, set[str]]) -> None:
    shown = {m.name for found in panel_queries().values() for q in found for m in metrics_of(q)}
    bases = {re.sub(r"_(bucket|count|sum|total|created)$", "", name) for name in exported}
    ours = {name for name in bases if name.startswith("streamingllm_")}
    assert ours <= {re.sub(r"_(bucket|total)$", "", name) for name in shown}


def test_panels_lie_side_by_side() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (place["x"] + dx, place["y"] + dy)
            for dx in range(place["w"])
            for dy in range(place["h"])
        }
        assert not taken & cells, panel["title"]
        taken |= cells
        assert panel["datasource"]["uid"] == "${datasource}"
    names = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?([a-z]\w*)\}?", json.dumps(DASHBOARD)))
    assert used == names


def test_grafana_is_provisioned_with_what_is_mounted() -> None:
    provisioning = DEPLOY / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text())[
        "datasources"
    ]
    host, _, port = source["url"].removeprefix("http://").partition(":")
    assert host in COMPOSE["services"]
    assert COMPOSE["services"][host]["ports"][0].endswith(f":{port}")
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "streamingllm.yaml").read_text())[
        "providers"
    ]
    mounts = dict(v.split(":")[:2] for v in COMPOSE["services"]["grafana"]["volumes"])
    assert provider["options"]["path"] == mounts["./grafana/dashboards"]
    assert mounts["./grafana/provisioning"] == "/etc/grafana/provisioning"


def test_prometheus_scrapes_services_of_the_compose_file() -> None:
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    prometheus = COMPOSE["services"]["prometheus"]
    for job in config["scrape_configs"]:
        for target in (t for static in job["static_configs"] for t in static["targets"]):
            service = COMPOSE["services"][target.partition(":")[0]]
            assert set(service["networks"]) & set(prometheus["networks"])
    ours = config["scrape_configs"][0]
    secret = ours["authorization"]["credentials_file"].removeprefix("/run/secrets/")
    assert secret in prometheus["secrets"]
    (variable,) = COMPOSE["secrets"][secret].values()
    assert COMPOSE["services"]["server"]["environment"][variable].startswith(f"${{{variable}")


def test_queries_are_valid() -> None:
    parser = pytest.importorskip("promql_parser")
    for query in queries():
        parser.parse(query.replace("$__rate_interval", "1m"))


@pytest.mark.skipif(shutil.which("promtool") is None, reason="Prometheus is not installed")
def test_prometheus_takes_its_files() -> None:
    for command in (
        ["check", "config", "--syntax-only", "prometheus.yml"],
        ["check", "rules", "alerts.yml"],
        ["test", "rules", "alerts_test.yml"],
    ):
        done = subprocess.run(
            ["promtool", *command], cwd=DEPLOY / "prometheus", capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
