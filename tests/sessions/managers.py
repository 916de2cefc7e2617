"""Session managers over the tiny chat model, and what tests ask of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from streamingllm import LanguageModel, StreamConfig
from streamingllm.engine import AsyncEngine, Engine
from streamingllm.sessions.manager import SessionManager
from streamingllm.sessions.session import Session
from streamingllm.sessions.session_settings import SessionSettings
from streamingllm.sessions.sqlite_store import SqliteStore
from streamingllm.sessions.transcript import Message
from streamingllm.sessions.turn import (
    Identity,
    TextDelta,
    TurnEnded,
    TurnEvent,
    TurnRequest,
)
from streamingllm.stream.sampling import SamplingParams

CACHE_SIZE = 64
MAX_PINNED = 30
SYSTEM = "Be kind."
TEN_TOKENS = SamplingParams(max_new_tokens=10)


@asynccontextmanager
async def managing(
    lm: LanguageModel, folder: Path, *, num_slots: int = 2, **settings: Any
) -> AsyncIterator[SessionManager]:
    """A manager whose sessions see 64 tokens."""
    folder.mkdir(exist_ok=True)
    config = StreamConfig.with_cache_size(CACHE_SIZE, 4, max_rewind_tokens=40, eviction="turn")
    engine = Engine(
        lm, config, max_streams=num_slots, max_pinned_tokens=MAX_PINNED, max_waiting=1000
    )
    manager = SessionManager(
        AsyncEngine(engine),
        lm,
        SqliteStore(folder / "sessions.sqlite", snapshots=folder / "snapshots"),
        SessionSettings(**settings),
        num_slots=num_slots,
        bytes_per_stream=engine.stats().bytes_per_stream,
        cache_size=CACHE_SIZE,
        max_pinned_tokens=MAX_PINNED,
    )
    try:
        yield manager
    finally:
        await manager.close()


def user(text: str) -> Message:
    return Message.of_text("user", text)


def assistant(text: str) -> Message:
    return Message.of_text("assistant", text)


def request(
    *messages: Message | str, identity: Identity | None = None, owner: str = "", **fields: Any
) -> TurnRequest:
    """A greedy turn of ten tokens."""
    fields = {"params": TEN_TOKENS, "system_prompt": SYSTEM, **fields}
    said = tuple(user(m) if isinstance(m, str) else m for m in messages)
    return TurnRequest(owner, said, identity=identity or Identity(), **fields)


def named(session_id: str) -> Identity:
    return Identity("session", session_id)


async def turn(manager: SessionManager, asked: TurnRequest) -> list[TurnEvent]:
    """All events of a turn."""
    return [event async for event in manager.respond(asked)]


def text_of(events: Sequence[TurnEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def end_of(events: Sequence[TurnEvent]) -> TurnEnded:
    last = events[-1]
    assert isinstance(last, TurnEnded)
    return last


async def say(manager: SessionManager, *messages: Message | str, **fields: Any) -> str:
    """The answer to a turn."""
    return text_of(await turn(manager, request(*messages, **fields)))


async def session_of(manager: SessionManager, session_id: str, owner: str = "") -> Session:
    """A session as the manager holds it."""
    return await manager._table.get(owner, session_id)


async def chat_of_turns(
    manager: SessionManager, session_id: str, num_turns: int = 12, **fields: Any
) -> list[str]:
    """The answers of a session to numbered questions."""
    return [
        await say(manager, f"q{number}?", identity=named(session_id), **fields)
        for number in range(num_turns)
    ]
