"""Start a cluster, and serve until a signal."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import ray
from ray import serve

from streamingllm.cluster.ray_app import cluster_app
from streamingllm.cluster.settings import ClusterSettings, check_for_cluster
from streamingllm.errors import ConfigError, first_line
from streamingllm.server.settings import ServerSettings

_APP = "streamingllm"
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def deploy(
    settings: ServerSettings, cluster: ClusterSettings, cache_dir: Path | None = None
) -> None:
    """Start Ray Serve where it does not run, and wait until all engines are ready.

    Args:
        settings: of each engine, and the address of the gateway.
        cluster: numbers of engines, and their resources.
        cache_dir: of models; None for the user's.

    Raises:
        ConfigError: a setting cannot be honoured in a cluster, or Ray cannot be reached.
    """
    check_for_cluster(settings)
    if not ray.is_initialized():
        _connect(cluster)
    serve.start(http_options={"host": settings.host, "port": settings.port})
    serve.run(cluster_app(settings, cluster, cache_dir), name=_APP, route_prefix="/")


def serve_until_signal(
    settings: ServerSettings,
    cluster: ClusterSettings,
    cache_dir: Path | None,
    on_ready: Callable[[int], None],
) -> None:
    """Serve until a signal; engines drain and write snapshots before they end.

    Args:
        settings: of each engine.
        cluster: numbers of engines, and their resources.
        cache_dir: of models; None for the user's.
        on_ready: called with the port once requests are accepted.

    Raises:
        ConfigError: see `deploy`.
    """
    try:
        deploy(settings, cluster, cache_dir)
        with _signalled() as is_over:  # Ray has replaced the handlers that there were
            on_ready(settings.port)
            is_over.wait()
        serve.delete(_APP)
    finally:
        if not cluster.ray_address:
            serve.shutdown()
            ray.shutdown()


def _connect(cluster: ClusterSettings) -> None:
    here = {"object_store_memory": cluster.object_store_bytes, "include_dashboard": False}
    options = {"address": cluster.ray_address} if cluster.ray_address else here
    try:
        ray.init(log_to_driver=False, **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"ray_address={cluster.ray_address!r} cannot be used ({first_line(error)}); start Ray "
            "there, or leave it out"
        ) from error


@contextlib.contextmanager
def _signalled() -> Iterator[threading.Event]:
    is_over = threading.Event()
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number in _SIGNALS:
        signal.signal(number, lambda *_: is_over.set())
    try:
        yield is_over
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
