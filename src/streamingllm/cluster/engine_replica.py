"""An engine with its sessions, as one of many: the server's own application behind a method."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from pathlib import Path

from streamingllm.cluster.asgi_call import call_app
from streamingllm.cluster.autoscaling import RESIDENT_BYTES
from streamingllm.cluster.forwarding import (
    ForwardedAttempt,
    ForwardedRequest,
    ReplicaGreeting,
    ReplicaPart,
)
from streamingllm.cluster.settings import ClusterSettings, check_for_cluster
from streamingllm.models import load_model
from streamingllm.server.app import create_app
from streamingllm.server.assembly import assemble
from streamingllm.server.json_log import log_to_stderr
from streamingllm.server.settings import ServerSettings


class EngineReplica:
    """Serve forwarded requests with an engine of one's own, on a store that all share.

    Args:
        settings: of the server.
        cluster: of the cluster.
        cache_dir: of models; None for the user's.
    """

    def __init__(
        self, settings: ServerSettings, cluster: ClusterSettings, cache_dir: Path | None = None
    ) -> None:
        check_for_cluster(settings)
        import torch

        log_to_stderr(settings.log_level, shows_user_text=settings.log_user_text)
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        lm = load_model(
            settings.model,
            dtype=settings.dtype,
            device=settings.device,
            cache_dir=cache_dir,
            quantize=settings.quantize,
        )
        self._settings = settings
        self._manager = assemble(lm, settings, lease_seconds=cluster.lease_seconds)
        self._app = create_app(self._manager, settings)
        self._has_started = False

    async def handle(
        self, request: ForwardedRequest, attempt: ForwardedAttempt
    ) -> AsyncGenerator[ReplicaPart, None]:
        """Yield the name of this engine and the answer to a request."""
        self._start()
        yield ReplicaGreeting(self._manager.holder)
        async with contextlib.aclosing(call_app(self._app, request, attempt)) as parts:
            async for part in parts:
                yield part

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Return what the number of engines depends on; Ray Serve calls this."""
        stats = await self._manager.stats()
        on_device = stats.num_sessions["device"] * stats.engine.bytes_per_stream
        resident = on_device + stats.num_bytes["host"]
        return {RESIDENT_BYTES: float(resident)}

    async def close(self) -> None:
        """Let running turns end, write snapshots, and close the store."""
        self._app.state.is_draining = True
        await self._app.state.responses.close()
        await self._manager.close(drain_seconds=self._settings.drain_seconds)

    def _start(self) -> None:
        """Begin housekeeping, in the event loop of the requests."""
        if not self._has_started:
            self._has_started = True
            self._manager.start()
