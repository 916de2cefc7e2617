"""Carry requests to engines by a handle of Ray Serve."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from ray.exceptions import (
    NodeDiedError,
    ObjectLostError,
    RayActorError,
    RaySystemError,
    WorkerCrashedError,
)
from ray.serve.exceptions import DeploymentUnavailableError, ReplicaUnavailableError

from streamingllm.cluster.forwarding import (
    ForwardedAttempt,
    ForwardedRequest,
    ReplicaDiedError,
    ReplicaPart,
)
from streamingllm.errors import first_line

_DEATHS = (
    RayActorError,
    NodeDiedError,
    ObjectLostError,
    RaySystemError,
    WorkerCrashedError,
    DeploymentUnavailableError,
    ReplicaUnavailableError,
)


class RayReplicas:
    """Send requests to the replicas of a deployment, sticky by key; `Replicas`.

    Args:
        handle: of the deployment, whose router hashes the session id.
    """

    def __init__(self, handle: Any) -> None:
        self._handle = handle.options(stream=True)

    async def send(
        self, key: str, request: ForwardedRequest, attempt: ForwardedAttempt
    ) -> AsyncGenerator[ReplicaPart, None]:
        """Yield what a replica answers; see `Replicas`."""
        parts = self._handle.options(session_id=key).handle.remote(request, attempt)
        is_whole = False
        try:
            async for part in parts:
                yield part
            is_whole = True
        except _DEATHS as error:
            is_whole = True
            raise ReplicaDiedError(f"an engine died ({first_line(error)[:200]})") from error
        finally:
            if not is_whole:
                parts.cancel()
