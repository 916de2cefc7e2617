"""Build the application of Ray Serve from the arguments of a configuration, for KubeRay."""

from __future__ import annotations

from typing import Any

from streamingllm.cluster.engine_replica import check_for_cluster
from streamingllm.cluster.ray_app import cluster_app
from streamingllm.cluster.settings import cluster_settings
from streamingllm.server.settings_loading import load_settings


def build(arguments: dict[str, Any]) -> Any:
    """Return the application; settings that are not given are taken from the environment.

    Args:
        arguments: `server` and `cluster`, each with settings by name.
    """
    settings = load_settings(arguments.get("server", {}), None)
    check_for_cluster(settings)
    return cluster_app(settings, cluster_settings(arguments.get("cluster", {})))
