"""Keep pages of other sites away from a server that trusts its own machine."""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from streamingllm.server.answers import refuse
from streamingllm.server.errors import ApiError

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


class OriginMiddleware:
    """Refuse requests under another host name, and changes that pages of other origins ask for.

    The first stops DNS rebinding. The second stops a page from using a server without keys, also
    over WebSocket, where browsers do not ask.

    Args:
        app: to pass requests on to.
        hosts: names of this server; empty for any.
        origins: of other pages that may call.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str], origins: Collection[str]) -> None:
        self._app = app
        self._hosts = frozenset(hosts)
        self._origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it with 403."""
        if scope["type"] in ("http", "websocket"):
            headers = Headers(scope=scope)
            host, origin = headers.get("host", ""), headers.get("origin")
            name = urlsplit(f"//{host}").hostname or ""
            if self._hosts and name not in self._hosts:
                error = ApiError(403, f"host={host[:80]!r} is no name of this server")
                await refuse(scope, receive, send, error)
                return
            is_change = scope["type"] == "websocket" or scope["method"] not in _SAFE_METHODS
            if origin is not None and is_change and not self._allows(origin, host):
                error = ApiError(
                    403, f"origin={origin[:80]!r} may not call this server; set cors_origin"
                )
                await refuse(scope, receive, send, error)
                return
        await self._app(scope, receive, send)

    def _allows(self, origin: str, host: str) -> bool:
        if origin in self._origins or "*" in self._origins:
            return True
        return urlsplit(origin).netloc.lower() == host.lower()
