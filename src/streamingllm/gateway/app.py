"""Put the gateway's routes into one application."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response

from streamingllm import __version__
from streamingllm.gateway.chat import ChatGateway, passed_on
from streamingllm.gateway.rollover import Rollover
from streamingllm.gateway.session_routes import session_routes
from streamingllm.gateway.sessions import GatewaySessions
from streamingllm.gateway.turn_memory import TurnMemory
from streamingllm.gateway.upstream import Upstream
from streamingllm.server.errors import add_error_handlers
from streamingllm.server.limits import BodyLimitMiddleware
from streamingllm.server.origins import OriginMiddleware
from streamingllm.server.routes import page

_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"]


def create_gateway(
    upstream: Upstream,
    turns: TurnMemory,
    rollover: Rollover | None = None,
    *,
    has_page: bool = True,
    hosts: Collection[str] = (),
    max_body_bytes: int,
) -> FastAPI:
    """Return an application that adds sessions to a server; it closes both when it ends.

    Chat completions get what the memory of their session recalls. Sessions and the page are the
    gateway's own. All other requests are passed on as they come.

    Args:
        upstream: the server.
        turns: the memory.
        rollover: keeps chat completions within the server's context limit; None to send all.
        has_page: whether the page of the server is at `/`.
        hosts: names of the gateway; empty for any.
        max_body_bytes: of a request.
    """

    @asynccontextmanager
    async def closing(_: FastAPI) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await chat.close()
            await upstream.close()
            turns.log.close()

    app = FastAPI(
        title="streamingllm gateway",
        version=__version__,
        openapi_url=None,
        redoc_url=None,
        docs_url=None,
        lifespan=closing,
    )
    chat = ChatGateway(upstream, turns, rollover)

    @app.get("/ready")
    async def ready() -> dict[str, str]:
        return {"status": "ready", "upstream": upstream.url}

    @app.post("/v1/chat/completions")
    async def answer(request: Request) -> Response:
        return await chat.answer(request)

    limit = 0 if rollover is None else rollover.settings.limit
    app.include_router(session_routes(GatewaySessions(turns.log), chat, limit))
    if has_page:
        app.include_router(page.router)

    @app.api_route("/{path:path}", methods=_METHODS)
    async def pass_on(request: Request, path: str) -> Response:
        return await passed_on(upstream, request, await request.body())

    add_error_handlers(app)
    app.add_middleware(BodyLimitMiddleware, max_bytes=max_body_bytes)
    app.add_middleware(OriginMiddleware, hosts=hosts, origins=())
    return app
