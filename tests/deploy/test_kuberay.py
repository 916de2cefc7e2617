"""The manifest for KubeRay: pods that Kubernetes takes, a configuration that Ray Serve takes."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from streamingllm.server.settings import setting_fields
from tests.deploy.manifests import Manifest, check_mounts_have_volumes, check_schema, objects
from tests.deploy.settings_used import ENVIRONMENT, ROOT

FOLDER = ROOT / "deploy" / "kuberay"
CLAIM, SERVICE = objects((FOLDER / "rayservice.yaml").read_text())
CONFIG: dict[str, Any] = yaml.safe_load(SERVICE["spec"]["serveConfigV2"])
CLUSTER: dict[str, Any] = SERVICE["spec"]["rayClusterConfig"]
(APPLICATION,) = CONFIG["applications"]


def templates() -> Iterator[Manifest]:
    yield CLUSTER["headGroupSpec"]["template"]
    yield from (group["template"] for group in CLUSTER["workerGroupSpecs"])


def test_pods_are_pods_of_kubernetes() -> None:
    check_schema(CLAIM)
    for template in templates():
        metadata = {**template["metadata"], "name": "ray"}
        pod = template["spec"]
        check_schema({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod})
        check_mounts_have_volumes(pod, [])
        assert pod["securityContext"]["runAsNonRoot"]
        for container in pod["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert "memory" in container["resources"]["limits"]
        claims = [
            v["persistentVolumeClaim"] for v in pod["volumes"] if "persistentVolumeClaim" in v
        ]
        assert claims == [{"claimName": CLAIM["metadata"]["name"]}]


def test_variables_and_settings_are_ours() -> None:
    known = {field.name for field in setting_fields()}
    assert APPLICATION["args"]["server"].keys() <= known
    for template in templates():
        for container in template["spec"]["containers"]:
            assert {v["name"] for v in container["env"]} <= ENVIRONMENT


def test_a_pod_has_time_to_drain() -> None:
    drain = APPLICATION["args"]["server"]["drain_seconds"]
    for group in CLUSTER["workerGroupSpecs"]:
        assert group["template"]["spec"]["terminationGracePeriodSeconds"] >= drain + 30


def test_there_is_a_pod_for_each_engine() -> None:
    arguments = APPLICATION["args"]["cluster"]
    (group,) = CLUSTER["workerGroupSpecs"]
    assert group["minReplicas"] >= arguments["replicas"]
    assert group["maxReplicas"] >= arguments["max_replicas"]
    (container,) = group["template"]["spec"]["containers"]
    assert int(container["resources"]["limits"]["cpu"]) >= arguments["cpus_per_replica"]
    ports = {port["containerPort"] for port in container["ports"]}
    assert CONFIG["http_options"]["port"] in ports


def test_ray_serve_takes_the_configuration() -> None:
    schema = pytest.importorskip("ray.serve.schema")
    found = schema.ServeDeploySchema.model_validate(CONFIG)
    assert [application.name for application in found.applications] == ["streamingllm"]
    ray = pytest.importorskip("ray")
    assert CLUSTER["rayVersion"] == ray.__version__


def test_the_import_path_builds_an_application(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray.serve")
    monkeypatch.syspath_prepend(FOLDER)
    module, _, name = APPLICATION["import_path"].partition(":")
    build = getattr(importlib.import_module(module), name)
    monkeypatch.setenv("STREAMINGLLM_API_KEY", "KEY")
    found = build(APPLICATION["args"])
    assert type(found).__name__ == "Application"
