"""A server of the tiny chat model in a thread, on a free port."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from streamingllm import LanguageModel, StreamConfig, load_model
from streamingllm.engine import AsyncEngine, Engine
from streamingllm.server.errors import add_error_handlers
from streamingllm.server.routes import anthropic, chat, completions, models
from streamingllm.sessions.manager import SessionManager
from streamingllm.sessions.session_settings import SessionSettings
from streamingllm.sessions.sqlite_store import SqliteStore
from streamingllm.stream.sampling import SamplingParams
from tests.reference.tiny_chat import write_tiny_chat
from tests.server.requests import Api

CACHE_SIZE = 64
MAX_PINNED = 30
NUM_SLOTS = 4


class OwnerOfAll:
    """Let every request be of the owner without a name."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("state", {})["owner"] = ""
        await self._app(scope, receive, send)


@pytest.fixture(scope="session")
def tiny_chat(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    """A tiny random model in float64 with one token per byte and a chat template."""
    return load_model(write_tiny_chat(tmp_path_factory.mktemp("tiny-chat")), dtype="float64")


@pytest.fixture(scope="session")
def server(tiny_chat: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server whose sessions see 64 tokens."""
    folder = tmp_path_factory.mktemp("server")
    app = _app(tiny_chat, folder)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=partial(_serve, server, app))
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture
def api(server: str) -> Iterator[Api]:
    """Requests to the server."""
    api = Api(server)
    yield api
    api.close()


@pytest.fixture
def anyio_backend() -> str:
    """Run coroutines in asyncio, as the server does."""
    return "asyncio"


def _serve(server: uvicorn.Server, app: FastAPI) -> None:
    async def serve() -> None:
        await server.serve()
        await app.state.manager.close()

    asyncio.run(serve())


def _app(lm: LanguageModel, folder: Path) -> FastAPI:
    config = StreamConfig.with_cache_size(CACHE_SIZE, 4, max_rewind_tokens=40, eviction="turn")
    engine = Engine(
        lm, config, max_streams=NUM_SLOTS, max_pinned_tokens=MAX_PINNED, max_waiting=1000
    )
    app = FastAPI()
    app.state.manager = SessionManager(
        AsyncEngine(engine),
        lm,
        SqliteStore(folder / "sessions.sqlite", snapshots=folder / "snapshots"),
        SessionSettings(),
        num_slots=NUM_SLOTS,
        bytes_per_stream=engine.stats().bytes_per_stream,
        cache_size=CACHE_SIZE,
        max_pinned_tokens=MAX_PINNED,
    )
    app.state.settings = SimpleNamespace(
        sampling_defaults=lambda: SamplingParams(max_new_tokens=64), model_aliases=("tiny",)
    )
    for routes in (anthropic, chat, completions, models):
        app.include_router(routes.router)
    add_error_handlers(app)
    app.add_middleware(OwnerOfAll)
    return app
