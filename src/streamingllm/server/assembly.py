"""Make the parts of a server from its settings."""

from __future__ import annotations

import logging

from streamingllm.config import StreamConfig
from streamingllm.engine import AsyncEngine, Engine
from streamingllm.errors import ConfigError
from streamingllm.memory.encoder import load_encoder
from streamingllm.memory.session_memory import SessionMemory
from streamingllm.models import LanguageModel
from streamingllm.server.session_store import open_store
from streamingllm.server.settings import ServerSettings
from streamingllm.sessions.manager import SessionManager
from streamingllm.sessions.reasoning import window_warning
from streamingllm.sessions.sql_leases import SqlLeases
from streamingllm.sessions.sql_store import SqlStore
from streamingllm.sessions.sqlite_store import SqliteStore

_log = logging.getLogger("streamingllm")
_MIN_SINK_TOKENS = 4


def assemble(
    lm: LanguageModel, settings: ServerSettings, *, lease_seconds: float | None = None
) -> SessionManager:
    """Return a manager of the sessions in the store, with an engine of its own.

    Args:
        lm: to serve.
        settings: of the server.
        lease_seconds: of leases, where several processes serve the store; None for one process.

    Raises:
        ConfigError: a setting is out of range for this model or machine.
        SnapshotError: the data folder cannot be used, or another process uses it.
        UnsupportedModelError: the model cannot stream.
    """
    config = StreamConfig.with_cache_size(
        settings.cache_size,
        _MIN_SINK_TOKENS,
        max_rewind_tokens=settings.rewind_bound,
        quantize_cache=settings.quantize_cache,
        eviction="turn",  # a session that evicts by token marks no turn
    )
    if warning := window_warning(lm, settings.cache_size):
        _log.warning(warning)
    engine = Engine(
        lm,
        config,
        max_streams=settings.max_streams,
        max_pinned_tokens=settings.pinned_bound,
        max_stall=settings.max_stall,
        # The manager queues turns; what waits here are further samples of a prompt.
        max_waiting=settings.max_streams + settings.max_waiting,
    )
    try:
        if settings.compile:
            engine.compile()
        store = open_store(settings, is_shared=lease_seconds is not None)
        recaller = _memory(store, settings)
        leases = None
        if lease_seconds is not None:
            leases = SqlLeases(store, lease_seconds=lease_seconds)
    except BaseException:
        engine.close()
        raise
    return SessionManager(
        AsyncEngine(engine),
        lm,
        store,
        settings.session_settings(),
        num_slots=settings.max_streams,
        bytes_per_stream=engine.stats().bytes_per_stream,
        cache_size=settings.cache_size,
        max_pinned_tokens=settings.pinned_bound,
        recaller=recaller,
        leases=leases,
    )


def _memory(store: SqlStore, settings: ServerSettings) -> SessionMemory | None:
    """Return the memory of a store if it is to recall; one that is there follows in any case."""
    if not isinstance(store, SqliteStore):
        if settings.memory:
            store.close()
            raise ConfigError("memory=True needs sessions in a file; leave out database or memory")
        return None
    try:
        if not settings.memory and not SessionMemory.is_in(store):
            return None
        encoder = load_encoder(settings.memory_encoder) if settings.memory_encoder else None
        memory = SessionMemory(store, encoder)
    except BaseException:
        store.close()
        raise
    return memory if settings.memory else None
