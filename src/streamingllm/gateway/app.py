"""Put the gateway's routes into one application."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response

from streamingllm import __version__
from streamingllm.gateway.chat import ChatGateway, owner_of, passed_on
from streamingllm.gateway.rollover import Rollover
from streamingllm.gateway.turn_memory import TurnMemory
from streamingllm.gateway.upstream import Upstream
from streamingllm.server.errors import ApiError, add_error_handlers
from streamingllm.server.limits import BodyLimitMiddleware
from streamingllm.server.origins import OriginMiddleware

_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"]
_SESSIONS = "/v1/sessions/{session_id}"


def create_gateway(
    upstream: Upstream,
    turns: TurnMemory,
    rollover: Rollover | None = None,
    *,
    hosts: Collection[str] = (),
    max_body_bytes: int,
) -> FastAPI:
    """Return an application that adds a memory to a server; it closes both when it ends.

    Chat completions that name a session get what the memory recalls. All other requests are passed
    on as they come.

    Args:
        upstream: the server.
        turns: the memory.
        rollover: keeps chat completions within the server's context limit; None to send all.
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
            turns.close()

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

    @app.delete(f"{_SESSIONS}/messages/{{message_id}}")
    def forget(request: Request, session_id: str, message_id: str) -> dict[str, object]:
        if not turns.forget(f"{owner_of(request)}:{session_id}", message_id):
            raise ApiError(404, f"message_id={message_id[:128]!r} is not there; see `recalled`")
        return {"id": message_id, "object": "message.deleted", "deleted": True}

    @app.delete(_SESSIONS)
    def forget_session(request: Request, session_id: str) -> dict[str, object]:
        turns.forget_session(f"{owner_of(request)}:{session_id}")
        return {"id": session_id, "object": "session.deleted", "deleted": True}

    @app.api_route("/{path:path}", methods=_METHODS)
    async def pass_on(request: Request, path: str) -> Response:
        return await passed_on(upstream, request, await request.body())

    add_error_handlers(app)
    app.add_middleware(BodyLimitMiddleware, max_bytes=max_body_bytes)
    app.add_middleware(OriginMiddleware, hosts=hosts, origins=())
    return app
