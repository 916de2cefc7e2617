"""Start of a server."""

from __future__ import annotations

import asyncio
import gc

import uvicorn
from fastapi import FastAPI

from streamingllm.server.running import Server


def test_what_is_there_before_a_server_listens_is_not_collected_again() -> None:
    passed_over: list[int] = []
    app = FastAPI()
    config = uvicorn.Config(app, port=0, lifespan="off", log_config=None)

    def ready(port: int) -> None:
        assert port > 0
        passed_over.append(gc.get_freeze_count())
        server.should_exit = True

    server = Server(config, app, ready)
    gc.unfreeze()
    try:
        asyncio.run(server.serve())
        assert passed_over[0] > 10_000
    finally:
        gc.unfreeze()
