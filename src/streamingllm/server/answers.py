"""Refuse a request before it reaches a route."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from streamingllm.server.errors import RETRY_AFTER_SECONDS, ApiError, error_body

_POLICY_VIOLATION = 1008
_MAX_REASON = 120
_ANTHROPIC_PATH = "/v1/messages"


async def refuse(
    scope: Scope,
    receive: Receive,
    send: Send,
    error: ApiError,
    headers: Mapping[str, str] | None = None,
) -> None:
    """Answer with an error in the shape of the API; a WebSocket is closed before it is accepted."""
    if scope["type"] == "websocket":
        await receive()
        await send(
            {"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": str(error)[:120]}
        )
        return
    is_anthropic = scope["path"].startswith(_ANTHROPIC_PATH)
    retry = {"retry-after": RETRY_AFTER_SECONDS} if error.status in (429, 503) else {}
    body = error_body("anthropic" if is_anthropic else "openai", error)
    response = JSONResponse(body, error.status, headers={**retry, **(headers or {})})
    await response(scope, receive, send)
