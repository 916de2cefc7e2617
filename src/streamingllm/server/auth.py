"""Keys of clients: whose a request is."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from hashlib import blake2b

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from streamingllm.server.answers import refuse
from streamingllm.server.errors import ApiError

_OPEN_PATHS = ("/", "/health", "/ready", "/openapi.json", "/docs", "/favicon.ico")
_METRICS = "/metrics"
_OPEN_FOLDERS = ("/page/",)
_SUBPROTOCOL = "openai-insecure-api-key."


def owner_of(key: str) -> str:
    """Return the name under which the sessions of a key are kept; it does not tell the key."""
    return blake2b(key.encode(), digest_size=12, person=b"streamingllm").hexdigest()


class AuthMiddleware:
    """Let only requests with a key pass, and say whose they are in `scope["state"]["owner"]`.

    Args:
        app: to pass requests on to.
        keys: of the clients; without any, all requests are of the owner "".
        metrics_key: opens `/metrics` and nothing else, and no other key does then; "" leaves
            `/metrics` to the clients' keys.
    """

    def __init__(self, app: ASGIApp, keys: Sequence[str], metrics_key: str = "") -> None:
        self._app = app
        self._owners = [owner_of(key) for key in keys]
        self._readers = [owner_of(metrics_key)] if metrics_key else []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it with 401."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        path = scope["path"]
        owners = self._readers if self._readers and path == _METRICS else self._owners
        owner = _owner(Headers(scope=scope), owners) if owners else ""
        is_open = path in _OPEN_PATHS or path.startswith(_OPEN_FOLDERS)
        if owner is None and not is_open and scope.get("method") != "OPTIONS":
            error = ApiError(
                401,
                "The key is missing or wrong; send `Authorization: Bearer KEY` or `x-api-key: KEY`",
                code="invalid_api_key",
            )
            await refuse(scope, receive, send, error, {"www-authenticate": "Bearer"})
            return
        scope.setdefault("state", {})["owner"] = owner or ""
        await self._app(scope, receive, send)


def _owner(headers: Headers, owners: Sequence[str]) -> str | None:
    """Return the owner of the key in headers; None for a wrong one. Takes the same time."""
    found = owner_of(_key_in(headers))
    matches = [hmac.compare_digest(found, owner) for owner in owners]
    return found if any(matches) else None


def _key_in(headers: Headers) -> str:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token:
        return token.strip()
    if key := headers.get("x-api-key"):
        return key
    # A browser's WebSocket can send no header of its own.
    for offered in headers.get("sec-websocket-protocol", "").split(","):
        if offered.strip().startswith(_SUBPROTOCOL):
            return offered.strip().removeprefix(_SUBPROTOCOL)
    return ""
