"""Servers of a model in a thread of this process, on a free port."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from streamingllm import LanguageModel
from streamingllm.server.app import create_app
from streamingllm.server.assembly import assemble
from streamingllm.server.settings import ServerSettings

CACHE_SIZE = 64
MAX_PINNED = 30
NUM_SLOTS = 4


@contextmanager
def serving(app: FastAPI, **options: Any) -> Iterator[str]:
    """Serve an application with further options of uvicorn, and yield its address."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", **options))
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


def small_app(lm: LanguageModel, folder: Path, **fields: Any) -> FastAPI:
    """An application whose sessions see 64 tokens, unless the settings say otherwise."""
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


def _serve(server: uvicorn.Server, app: FastAPI) -> None:
    async def serve() -> None:
        await server.serve()
        await app.state.responses.close()
        await app.state.manager.close()

    asyncio.run(serve())
