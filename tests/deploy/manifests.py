"""Objects of Kubernetes in rendered templates, and checks that they have in common."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

Manifest = dict[str, Any]

KUBERNETES = "1.30"


def objects(text: str) -> list[Manifest]:
    """The objects of a file of YAML documents; empty documents are left out."""
    return [found for found in yaml.safe_load_all(text) if found]


def check_schema(manifest: Manifest) -> None:
    """Hold an object against the schemas of Kubernetes itself."""
    validator = pytest.importorskip("kubernetes_validate")
    validator.validate(manifest, KUBERNETES, strict=True)


def containers(pod: Manifest) -> Iterator[Manifest]:
    yield from pod.get("initContainers", [])
    yield from pod["containers"]


def check_pod_is_locked_in(pod: Manifest) -> None:
    """The restricted standard of Kubernetes, and no token of the cluster."""
    security = pod["securityContext"]
    assert security["runAsNonRoot"]
    assert security["runAsUser"] > 0
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    for container in containers(pod):
        own = container["securityContext"]
        assert own["allowPrivilegeEscalation"] is False
        assert own["readOnlyRootFilesystem"] is True
        assert own["capabilities"] == {"drop": ["ALL"]}
        assert {"requests", "limits"} <= container["resources"].keys()
        assert "memory" in container["resources"]["limits"]


def check_mounts_have_volumes(pod: Manifest, claims: list[Manifest]) -> None:
    """Each mounted volume is there, and each volume is mounted."""
    volumes = {volume["name"] for volume in pod.get("volumes", [])}
    volumes |= {claim["metadata"]["name"] for claim in claims}
    mounted = {m["name"] for c in containers(pod) for m in c.get("volumeMounts", [])}
    assert mounted == volumes
