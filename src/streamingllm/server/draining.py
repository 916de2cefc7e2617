"""Refuse new requests while running turns end."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from streamingllm.server.answers import refuse
from streamingllm.server.errors import ApiError


class DrainingMiddleware:
    """Answer 503 to requests of the API once the server is about to stop.

    Args:
        app: to pass requests on to.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it with 503."""
        is_api = scope["type"] in ("http", "websocket") and scope["path"].startswith("/v1/")
        if is_api and scope["app"].state.is_draining:
            error = ApiError(503, "The server is draining; retry later", code="draining")
            await refuse(scope, receive, send, error)
            return
        await self._app(scope, receive, send)
