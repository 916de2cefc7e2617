"""Write snapshots of idle sessions and delete expired ones, between turns."""

from __future__ import annotations

import asyncio
import logging
import time

from streamingllm.engine import EngineStats
from streamingllm.errors import StreamingLLMError
from streamingllm.sessions.periodic import Periodic
from streamingllm.sessions.residency import ResidencyPolicy
from streamingllm.sessions.response_store import ResponseStore
from streamingllm.sessions.session_settings import SessionSettings
from streamingllm.sessions.session_table import SessionTable
from streamingllm.sessions.session_types import ManagerStats
from streamingllm.sessions.snapshot_shelf import SnapshotShelf
from streamingllm.sessions.sql_store import SqlStore

_PERIOD_SECONDS = 1.0
_EXPIRE_SECONDS = 60.0
_MAX_VOLATILE = 1000
_log = logging.getLogger("streamingllm.sessions")


class Housekeeping(Periodic):
    """Write snapshots and delete what has expired, once a second.

    Args:
        table: sessions in memory.
        store: of durable sessions.
        responses: of the same store.
        residency: tiers of sessions.
        settings: how long sessions are idle, and live.
    """

    def __init__(
        self,
        table: SessionTable,
        store: SqlStore,
        responses: ResponseStore,
        residency: ResidencyPolicy,
        settings: SessionSettings,
    ) -> None:
        self._table = table
        self._store = store
        self._responses = responses
        self._residency = residency
        self._settings = settings

    async def _run(self) -> None:
        expired_at = 0.0
        while True:
            await asyncio.sleep(_PERIOD_SECONDS)
            try:
                await self._residency.snapshot_idle(self._settings.snapshot_after_seconds)
                await self._drop_volatile()
                if time.monotonic() - expired_at >= _EXPIRE_SECONDS:
                    expired_at = time.monotonic()
                    await self._expire()
            except StreamingLLMError as error:
                _log.warning("housekeeping failed (%s); it goes on", error)

    async def _drop_volatile(self) -> None:
        """Forget the sessions that no store has, the oldest first, when there are too many."""
        volatile = self._table.volatile
        for session in volatile[: max(0, len(volatile) - _MAX_VOLATILE)]:
            if session.lock.is_free:
                async with session.lock:
                    self._table.forget(session)
                    await self._residency.drop(session)

    async def _expire(self) -> None:
        await asyncio.to_thread(self._responses.expire, time.time())
        seconds = self._settings.session_ttl_seconds
        if seconds is None:
            return
        for session in self._table:
            is_old = time.monotonic() - session.used_seconds > seconds
            if is_old and session.lock.is_free:
                async with session.lock:
                    self._table.forget(session)
                    await self._residency.drop(session)
        await asyncio.to_thread(self._store.expire, time.time(), seconds)

    async def stats(
        self, engine: EngineStats, shelf: SnapshotShelf, num_running: int
    ) -> ManagerStats:
        """Return counts and bytes by tier."""
        residency = self._residency
        num_stored = await asyncio.to_thread(self._store.count)
        on_device, on_host = len(residency.device), residency.num_on_host
        return ManagerStats(
            engine,
            {
                "device": on_device,
                "host": on_host,
                "disk": len(shelf),
                "tail": max(0, num_stored - len(shelf)),
            },
            {
                "device": engine.nbytes,
                "host": residency.host_bytes,
                "disk": shelf.nbytes,
            },
            {f"{a}->{b}": count for (a, b), count in residency.moves.items()},
            residency.slots.num_waiting,
            num_running,
        )
