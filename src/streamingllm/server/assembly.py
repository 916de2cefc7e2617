"""Make the parts of a server from its settings."""

from __future__ import annotations

import logging
from pathlib import Path

import platformdirs

from streamingllm.config import StreamConfig
from streamingllm.engine import AsyncEngine, Engine
from streamingllm.errors import ConfigError
from streamingllm.memory.encoder import load_encoder
from streamingllm.memory.session_memory import SessionMemory
from streamingllm.models import LanguageModel
from streamingllm.server.settings import ServerSettings
from streamingllm.sessions.manager import SessionManager
from streamingllm.sessions.reasoning import window_warning
from streamingllm.sessions.sqlite_store import SqliteStore

_log = logging.getLogger("streamingllm")
_MIN_SINK_TOKENS = 4
_DATABASE = "sessions.sqlite"
_SNAPSHOTS = "snapshots"


def data_folder(settings: ServerSettings) -> Path:
    """Return the folder of sessions and snapshots, made if it is missing.

    Raises:
        ConfigError: it cannot be made.
    """
    folder = Path(settings.data_dir or platformdirs.user_data_dir("streamingllm"))
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigError(
            f"data_dir={str(folder)!r} cannot be made ({error.strerror}); name another folder"
        ) from error
    return folder


def assemble(lm: LanguageModel, settings: ServerSettings) -> SessionManager:
    """Return a manager of the sessions in the data folder, with an engine of its own.

    Args:
        lm: to serve.
        settings: of the server.

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
    folder = data_folder(settings)
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
        store = SqliteStore(folder / _DATABASE, snapshots=folder / _SNAPSHOTS, is_exclusive=True)
        recaller = _memory(store, settings)
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
    )


def _memory(store: SqliteStore, settings: ServerSettings) -> SessionMemory | None:
    """Return the memory of a store if it is to recall; one that is there follows in any case."""
    try:
        if not settings.memory and not SessionMemory.is_in(store):
            return None
        encoder = load_encoder(settings.memory_encoder) if settings.memory_encoder else None
        memory = SessionMemory(store, encoder)
    except BaseException:
        store.close()
        raise
    return memory if settings.memory else None
