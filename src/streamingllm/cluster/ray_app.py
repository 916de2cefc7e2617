"""Define the deployments of Ray Serve: engines, and gateways before them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from ray import serve
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy, RequestRouterConfig
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from streamingllm.cluster.autoscaling import ResidentBytesPolicy
from streamingllm.cluster.forwarding import ForwardedAttempt, ForwardedRequest, ReplicaPart
from streamingllm.cluster.gateway import Gateway
from streamingllm.cluster.ray_replicas import RayReplicas
from streamingllm.cluster.settings import ClusterSettings
from streamingllm.server.session_store import open_store
from streamingllm.server.settings import ServerSettings
from streamingllm.sessions.response_store import ResponseStore

ENGINES = "engines"
GATEWAYS = "gateways"
_ROUTER = "ray.serve.experimental.consistent_hash_router.ConsistentHashRouter"
_UNBOUNDED = 10_000  # engines queue turns themselves; a refusal would move a session
_HEALTH_SECONDS = 1.0


class _Engine:
    """Run an engine as a replica of Ray Serve, and close it once that has drained it."""

    def __init__(
        self, settings: ServerSettings, cluster: ClusterSettings, cache_dir: Path | None
    ) -> None:
        from streamingllm.cluster.engine_replica import EngineReplica  # torch; gateways have none

        self._replica = EngineReplica(settings, cluster, cache_dir)

    async def handle(
        self, request: ForwardedRequest, attempt: ForwardedAttempt
    ) -> AsyncGenerator[ReplicaPart, None]:
        async with contextlib.aclosing(self._replica.handle(request, attempt)) as parts:
            async for part in parts:
                yield part

    async def record_autoscaling_stats(self) -> dict[str, float]:
        return await self._replica.record_autoscaling_stats()

    async def __del__(self) -> None:
        await asyncio.shield(self._replica.close())


class _Gateway:
    """Hand requests of Ray Serve's proxy to a gateway."""

    def __init__(self, engines: Any, settings: ServerSettings, cluster: ClusterSettings) -> None:
        responses = ResponseStore(open_store(settings, is_shared=True).database)
        self._gateway = Gateway(
            RayReplicas(engines),
            max_body_bytes=settings.max_body_bytes,
            failover_seconds=cluster.failover_seconds,
            session_of=responses.session_of,
        )

    async def __call__(self, request: Request) -> Response:
        return _GatewayAnswer(self._gateway)


class _GatewayAnswer(Response):
    """Let a gateway read the request and send the answer itself."""

    def __init__(self, gateway: Gateway) -> None:
        super().__init__()
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._gateway(scope, receive, send)


def cluster_app(
    settings: ServerSettings, cluster: ClusterSettings, cache_dir: Path | None = None
) -> Any:
    """Return the application of Ray Serve.

    Args:
        settings: of each engine.
        cluster: numbers of engines, and their resources.
        cache_dir: of models; None for the user's.
    """
    resources = {"num_cpus": cluster.cpus_per_replica, "num_gpus": cluster.gpus_per_replica}
    engines = serve.deployment(_Engine).options(
        name=ENGINES,
        ray_actor_options=resources,
        max_ongoing_requests=_UNBOUNDED,
        # One fallback is faster than waiting for news of a death; the lease makes it safe.
        request_router_config=RequestRouterConfig(
            request_router_class=_ROUTER, request_router_kwargs={"num_fallback_replicas": 1}
        ),
        graceful_shutdown_timeout_s=settings.drain_seconds + _HEALTH_SECONDS,
        graceful_shutdown_wait_loop_s=_HEALTH_SECONDS,
        health_check_period_s=_HEALTH_SECONDS,
        **_number_of(cluster),
    )
    gateways = serve.deployment(_Gateway).options(
        name=GATEWAYS,
        num_replicas=cluster.gateways,
        ray_actor_options={"num_cpus": 0},
        max_ongoing_requests=_UNBOUNDED,
    )
    return gateways.bind(engines.bind(settings, cluster, cache_dir), settings, cluster)


def _number_of(cluster: ClusterSettings) -> dict[str, Any]:
    if cluster.max_replicas is None:
        return {"num_replicas": cluster.replicas}
    policy = AutoscalingPolicy(
        policy_function=ResidentBytesPolicy,
        policy_kwargs={"bytes_per_engine": float(cluster.resident_bytes)},
    )
    return {
        "autoscaling_config": AutoscalingConfig(
            min_replicas=cluster.replicas,
            max_replicas=cluster.max_replicas,
            initial_replicas=cluster.replicas,
            policy=policy,
        )
    }
