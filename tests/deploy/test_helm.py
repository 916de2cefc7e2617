"""The Helm chart: its values have a schema, its templates render to what Kubernetes takes."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
import yaml

from streamingllm import __version__
from tests.deploy.commands import check_options
from tests.deploy.manifests import (
    Manifest,
    check_mounts_have_volumes,
    check_pod_is_locked_in,
    check_schema,
    objects,
)
from tests.deploy.settings_used import ENVIRONMENT, FLAGS, ROOT, settings_under

CHART = ROOT / "deploy" / "helm" / "streamingllm"
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
KEYS = {"keys": {"apiKeys": ["KEY-1", "KEY-2"], "metricsKey": "METRICS"}}
EVERYTHING: dict[str, Any] = {
    **KEYS,
    "server": {"settings": {"memory": True, "eviction": "turn", "max_waiting": 64}},
    "gateway": {"enabled": True, "upstream": "https://engine.example.org"},
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "networkPolicy": {"enabled": True},
    "storage": {"storageClass": "fast"},
    "imagePullSecrets": [{"name": "registry"}],
}


def rendered(values: dict[str, Any]) -> list[Manifest]:
    """The objects that Helm's own renderer makes, without a cluster."""
    helm = pytest.importorskip("helm_python")
    with helm.Chart.load(CHART) as chart:
        files: dict[str, str] = chart.render(values, name="talk", namespace="chats")
    return [o for name, text in files.items() if name.endswith(".yaml") for o in objects(text)]


def of_kind(kind: str, found: list[Manifest]) -> dict[str, Manifest]:
    return {o["metadata"]["name"]: o for o in found if o["kind"] == kind}


def server_args() -> list[str]:
    """The arguments of the server in the template, values put in without a renderer."""
    text = (CHART / "templates" / "statefulset.yaml").read_text()
    lines = text.partition("args:")[2].partition("env:")[0]
    return [line.strip().removeprefix("- ") for line in lines.splitlines() if "- --" in line]


def test_the_values_follow_their_schema() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    jsonschema.validate(VALUES, SCHEMA)
    assert VALUES.keys() <= SCHEMA["properties"].keys()


@pytest.mark.parametrize(
    "wrong",
    [
        {"sever": {}},
        {"server": {"cacheSize": "1024"}},
        {"server": {"hostMemory": "lots"}},
        {"server": {"replicas": 3}},
        {"server": {"settings": {"api_key": "KEY"}}},
        {"server": {"settings": {"host": "0.0.0.0"}}},
        {"gateway": {"upstream": "vllm:8000"}},
        {"storage": {"accessMode": "ReadWriteMany"}},
    ],
)
def test_wrong_values_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, SCHEMA)


def test_its_versions_are_those_of_the_package() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == chart["version"] == __version__


def test_its_arguments_are_options_of_serve() -> None:
    flags = {argument.partition("=")[0] for argument in server_args()}
    assert len(flags) > 4
    assert flags <= FLAGS


def test_its_defaults_are_settings_that_load(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    values = VALUES["server"]
    arguments = [
        *("--model", values["model"], "--cache-size", str(values["cacheSize"])),
        *("--max-streams", str(values["maxStreams"]), "--host-memory", values["hostMemory"]),
        *("--disk", values["disk"], "--drain-seconds", str(values["drainSeconds"])),
    ]
    found = settings_under({}, arguments, monkeypatch, capsys)
    assert found["drain_seconds"] == values["drainSeconds"]


@pytest.mark.parametrize("values", [KEYS, EVERYTHING], ids=["defaults", "everything"])
def test_kubernetes_takes_what_it_renders(values: dict[str, Any]) -> None:
    found = rendered(values)
    for manifest in found:
        if manifest["kind"] != "ServiceMonitor":  # a resource of the Prometheus Operator
            check_schema(manifest)
    for stateful in of_kind("StatefulSet", found).values():
        spec = stateful["spec"]
        pod = spec["template"]["spec"]
        check_pod_is_locked_in(pod)
        check_mounts_have_volumes(pod, spec["volumeClaimTemplates"])
        labels = spec["template"]["metadata"]["labels"]
        assert spec["selector"]["matchLabels"].items() <= labels.items()
        assert spec["serviceName"] in of_kind("Service", found)


def test_services_and_the_monitor_find_their_pods() -> None:
    found = rendered(EVERYTHING)
    pods = [s["spec"]["template"] for s in of_kind("StatefulSet", found).values()]
    services = of_kind("Service", found)
    assert services.keys() == {"talk-streamingllm", "talk-streamingllm-gateway"}
    for service in services.values():
        selector = service["spec"]["selector"].items()
        (pod,) = [p for p in pods if selector <= p["metadata"]["labels"].items()]
        ports = {p["name"] for c in pod["spec"]["containers"] for p in c["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    (monitor,) = of_kind("ServiceMonitor", found).values()
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    matched = [name for name, s in services.items() if wanted <= s["metadata"]["labels"].items()]
    assert matched == ["talk-streamingllm"]
    (secret,) = of_kind("Secret", found).values()
    key = monitor["spec"]["endpoints"][0]["authorization"]["credentials"]
    assert (key["name"], key["key"]) == (secret["metadata"]["name"], "metrics-key")


def test_the_server_has_its_keys_and_time_to_drain() -> None:
    found = rendered(EVERYTHING)
    (secret,) = of_kind("Secret", found).values()
    assert secret["stringData"] == {"api-keys": "KEY-1\nKEY-2", "metrics-key": "METRICS"}
    pod = of_kind("StatefulSet", found)["talk-streamingllm"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    variables = {v["name"]: v for v in container["env"]}
    assert variables.keys() <= ENVIRONMENT
    assert variables["STREAMINGLLM_MEMORY"]["value"] == "true"
    assert variables["STREAMINGLLM_API_KEY_FILE"]["value"] == "/run/keys/api-keys"
    assert pod["terminationGracePeriodSeconds"] >= VALUES["server"]["drainSeconds"] + 60
    (gateway,) = of_kind("StatefulSet", found)["talk-streamingllm-gateway"]["spec"]["template"][
        "spec"
    ]["containers"]
    check_options("gateway", gateway["args"])


def test_a_server_without_keys_is_refused() -> None:
    helm = pytest.importorskip("helm_python")
    with pytest.raises(helm.errors.HelmError, match=r"keys.apiKeys=\[\] leaves the server"):
        rendered({})
    assert of_kind("Secret", rendered({"keys": {"existingSecret": "mine"}})) == {}


def test_helm_finds_no_fault() -> None:
    helm = pytest.importorskip("helm_python")
    report = helm.chart.lint(CHART, KEYS, strict=True)
    faults = [m for m in report["messages"] if m["severity"] > 1]
    assert (report["errors"] or [], faults) == ([], [])
