"""Pages of other sites cannot use a server that trusts its own machine."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.responses import PlainTextResponse

from streamingllm.server.origins import LOOPBACK_NAMES, OriginMiddleware
from tests.server.asgi import request, websocket


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        return
    await PlainTextResponse("yes")(scope, receive, send)


GUARDED = OriginMiddleware(app, LOOPBACK_NAMES, ["https://chat.example"])


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8080", "", "127.0.0.1.evil.example"]
)
def test_another_host_name_is_refused(host: str) -> None:
    assert asyncio.run(request(GUARDED, "/v1/sessions", {"host": host})).status == 403


@pytest.mark.parametrize("host", ["localhost", "localhost:8080", "127.0.0.1:1", "[::1]:8080"])
def test_own_host_names_pass(host: str) -> None:
    assert asyncio.run(request(GUARDED, "/v1/sessions", {"host": host})).status == 200


@pytest.mark.parametrize(
    ("origin", "passes"),
    [
        ("http://localhost:8080", True),
        ("https://chat.example", True),
        ("http://localhost:9999", False),
        ("https://evil.example", False),
        ("null", False),
    ],
)
def test_only_known_origins_change_anything(origin: str, passes: bool) -> None:
    headers = {"origin": origin}
    status = asyncio.run(request(GUARDED, "/v1/sessions", headers, method="POST")).status
    assert (status == 200) == passes
    sent = asyncio.run(websocket(GUARDED, "/v1/realtime", headers))
    assert (sent[0]["type"] == "websocket.accept") == passes


def test_any_name_is_right_where_keys_protect() -> None:
    public = OriginMiddleware(app, (), ())
    assert asyncio.run(request(public, "/v1/models", {"host": "llm.example"})).status == 200
