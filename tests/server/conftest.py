"""A server of the tiny chat model in a thread, on a free port."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI

from streamingllm import LanguageModel, load_model
from streamingllm.server.app import create_app
from streamingllm.server.assembly import assemble
from streamingllm.server.settings import ServerSettings
from tests.reference.tiny_chat import write_tiny_chat
from tests.server.requests import Api

CACHE_SIZE = 64
MAX_PINNED = 30
NUM_SLOTS = 4


@pytest.fixture(scope="session")
def tiny_chat(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    """A tiny random model in float64 with one token per byte and a chat template."""
    return load_model(write_tiny_chat(tmp_path_factory.mktemp("tiny-chat")), dtype="float64")


@pytest.fixture(scope="session")
def server(tiny_chat: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server whose sessions see 64 tokens."""
    with _serving(_app(tiny_chat, tmp_path_factory.mktemp("server"))) as url:
        yield url


@pytest.fixture(scope="session")
def smol_server(
    default_model: LanguageModel, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The address of a server of the default model whose sessions see 512 tokens."""
    app = _app(
        default_model,
        tmp_path_factory.mktemp("smol-server"),
        model=default_model.name,
        cache_size=512,
        max_streams=2,
        max_pinned_tokens=384,
        max_rewind_tokens=64,
    )
    with _serving(app) as url:
        yield url


@pytest.fixture(scope="session")
def keyed_server(
    tiny_chat: LanguageModel, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The address of a server of two keys, "alice" and "bob"."""
    folder = tmp_path_factory.mktemp("keyed")
    with _serving(_app(tiny_chat, folder, api_key=("alice", "bob"))) as url:
        yield url


@pytest.fixture
def smol(smol_server: str) -> Iterator[Api]:
    """Requests to the server of the default model."""
    api = Api(smol_server)
    yield api
    api.close()


@contextmanager
def _serving(app: FastAPI) -> Iterator[str]:
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
        await app.state.responses.close()
        await app.state.manager.close()

    asyncio.run(serve())


def _app(lm: LanguageModel, folder: Path, **fields: Any) -> FastAPI:
    small = {
        "model": "tiny",
        "cache_size": CACHE_SIZE,
        "max_streams": NUM_SLOTS,
        "max_pinned_tokens": MAX_PINNED,
        "max_rewind_tokens": 40,
        "default_max_tokens": 64,
        "default_temperature": 0.0,
        "default_top_p": 1.0,
        "compile": False,
    }
    settings = ServerSettings(data_dir=str(folder), **{**small, **fields})
    return create_app(assemble(lm, settings), settings)
