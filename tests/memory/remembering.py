"""Session managers with a memory, and a secret that they are told."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from streamingllm import LanguageModel, StreamConfig
from streamingllm.engine import AsyncEngine, Engine
from streamingllm.memory.session_memory import SessionMemory
from streamingllm.sessions.manager import SessionManager
from streamingllm.sessions.recall import Recall
from streamingllm.sessions.session_settings import SessionSettings
from streamingllm.sessions.sqlite_store import SqliteStore
from streamingllm.sessions.turn import TurnStarted
from tests.sessions.managers import named, request, say, session_of, turn

CACHE_SIZE = 600  # one token is one byte
MAX_REWIND = 300
BUDGET = 240
SECRET = "The hamster is called Napoleon."
QUESTION = "Who is Napoleon?"
HERE = named("here")


@asynccontextmanager
async def remembering(
    lm: LanguageModel,
    folder: Path,
    *,
    has_memory: bool = True,
    max_pinned: int = 64,
    cache_size: int = CACHE_SIZE,
    **settings: Any,
) -> AsyncIterator[SessionManager]:
    """A manager whose sessions see 600 tokens, of which recalled texts take 240 at most."""
    config = StreamConfig.with_cache_size(
        cache_size, 4, max_rewind_tokens=MAX_REWIND, eviction="turn"
    )
    engine = Engine(lm, config, max_streams=2, max_pinned_tokens=max_pinned, max_waiting=100)
    folder.mkdir(exist_ok=True)
    store = SqliteStore(folder / "sessions.sqlite", snapshots=folder / "snapshots")
    manager = SessionManager(
        AsyncEngine(engine),
        lm,
        store,
        SessionSettings(recall_share=0.4, **settings),
        num_slots=2,
        bytes_per_stream=engine.stats().bytes_per_stream,
        cache_size=cache_size,
        max_pinned_tokens=max_pinned,
        recaller=SessionMemory(store) if has_memory else None,
    )
    try:
        yield manager
    finally:
        await manager.close()


async def tell_secret(manager: SessionManager, **fields: Any) -> str:
    """Tell the secret, go on until it is forgotten, and return the id of its message."""
    await say(manager, SECRET, identity=HERE, **fields)
    for number in range(18):
        await say(manager, f"And now a word about place {number}.", identity=HERE, **fields)
    session = await session_of(manager, "here")
    assert session.num_forgotten_tokens > session.transcript[2].stop
    return session.transcript[1].id


async def asked(
    manager: SessionManager, question: str = QUESTION, *, session_id: str = "here", **fields: Any
) -> Recall | None:
    """Recalled text for a question."""
    started = (await turn(manager, request(question, identity=named(session_id), **fields)))[0]
    assert isinstance(started, TurnStarted)
    return started.view.recall


async def fed(manager: SessionManager) -> str:
    """The text of all tokens that the session was fed or generated."""
    session = await session_of(manager, "here")
    return str(manager.lm.tokenizer.decode(session.token_log[0 : len(session.token_log)].tolist()))


def grep(folder: Path, word: str) -> bool:
    return subprocess.run(["grep", "-rqai", word, str(folder)], check=False).returncode == 0
