"""Engines of one store in one process, which die at chosen moments."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from streamingllm import LanguageModel
from streamingllm.cluster.asgi_call import call_app
from streamingllm.cluster.forwarding import (
    AnswerPart,
    ForwardedAttempt,
    ForwardedRequest,
    ReplicaDiedError,
    ReplicaGreeting,
    ReplicaPart,
)
from streamingllm.cluster.gateway import Gateway
from streamingllm.server.app import create_app
from streamingllm.server.assembly import assemble
from streamingllm.server.settings import ServerSettings
from tests.server.serving import CACHE_SIZE, MAX_PINNED

SMALL = {
    "model": "tiny",
    "cache_size": CACHE_SIZE,
    "max_streams": 4,
    "max_pinned_tokens": MAX_PINNED,
    "max_rewind_tokens": 40,
    "default_max_tokens": 64,
    "default_temperature": 0.0,
    "default_top_p": 1.0,
    "compile": False,
}


@dataclass
class Deaths:
    """Say after how many parts of an answer its engine dies; each death happens once.

    Args:
        moments: numbers of parts, the next death first.
        commits: whether the engine ends the turn before it is gone, unheard.
    """

    moments: list[int] = field(default_factory=list)
    commits: bool = False
    num_deaths: int = 0


class MortalEngines:
    """Engines that take the requests of a key in turns, one dead after the other; `Replicas`.

    Args:
        make: returns the application of a new engine.
        deaths: to come.
    """

    def __init__(self, make: Callable[[], FastAPI], deaths: Deaths) -> None:
        self._make = make
        self._deaths = deaths
        self._app = make()
        self.apps = [self._app]
        self.keys: list[str] = []

    async def send(
        self, key: str, request: ForwardedRequest, attempt: ForwardedAttempt
    ) -> AsyncGenerator[ReplicaPart, None]:
        self.keys.append(key)
        app = self._app
        yield ReplicaGreeting(app.state.manager.holder)
        moment = self._deaths.moments.pop(0) if self._deaths.moments else None
        num_parts = 0
        async with contextlib.aclosing(call_app(app, request, attempt)) as parts:
            async for part in parts:
                num_parts += isinstance(part, AnswerPart)
                if moment is not None and num_parts > moment and not self._deaths.commits:
                    _silence(app)
                    break
                if moment is None or num_parts <= moment:
                    yield part
        if moment is not None and num_parts > moment:
            self._deaths.num_deaths += 1
            if self._app is app:
                _silence(app)
                self._app = self._make()
                self.apps.append(self._app)
            raise ReplicaDiedError("killed by a test")


def _silence(app: FastAPI) -> None:
    """Let nothing that an engine does from now on be stored, as if it did nothing."""
    database = app.state.manager.store.database
    transaction = database.transaction

    @contextlib.contextmanager
    def lost() -> Iterator[None]:
        with contextlib.suppress(_LostError), transaction():
            yield
            raise _LostError

    database.transaction = lost


class _LostError(Exception):
    """Take a transaction back."""


@asynccontextmanager
async def cluster_of(
    lm: LanguageModel, folder: Path, deaths: Deaths | None = None, **fields: Any
) -> AsyncIterator[tuple[Gateway, MortalEngines]]:
    """A gateway before engines of one store."""
    settings = ServerSettings(data_dir=str(folder), **{**SMALL, **fields})

    def make() -> FastAPI:
        manager = assemble(lm, settings, lease_seconds=2.0)
        manager.start()
        return create_app(manager, settings)

    engines = MortalEngines(make, deaths or Deaths())
    gateway = Gateway(
        engines,
        max_body_bytes=settings.max_body_bytes,
        failover_seconds=20.0,
        session_of=engines.apps[0].state.manager.responses.session_of,
    )
    try:
        yield gateway, engines
    finally:
        for app in engines.apps:
            await app.state.responses.close()
            await app.state.manager.close()
