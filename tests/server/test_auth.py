"""Requests without a key are refused on every route; each key has its own sessions."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fastapi import FastAPI

from streamingllm.server.auth import AuthMiddleware, owner_of
from streamingllm.server.errors import add_error_handlers
from tests.server.asgi import request, websocket

KEYS = ("alice-key", "bob-key")


@pytest.fixture
def app() -> Any:
    app = FastAPI()

    @app.get("/{path:path}")
    def who(path: str) -> dict[str, str]:
        return {"path": path}

    seen: list[str] = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["state"]["owner"])
        await app(scope, receive, send)

    add_error_handlers(app)
    middleware = AuthMiddleware(inner, KEYS)
    middleware.seen = seen  # type: ignore[attr-defined]
    return middleware


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": "Basic alice-key"},
        {"authorization": "Bearer "},
        {"x-api-key": "alice-ke"},
        {"authorization": "alice-key"},
    ],
)
@pytest.mark.parametrize("path", ["/v1/models", "/v1/messages", "/metrics", "/v1/sessions/x"])
def test_a_missing_or_wrong_key_is_refused(app: Any, path: str, headers: dict[str, str]) -> None:
    answer = asyncio.run(request(app, path, headers))
    assert answer.status == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    error = answer.json()["error"]
    assert error["type"] == "authentication_error"
    assert (answer.json().get("type") == "error") == (path == "/v1/messages")
    assert app.seen == []


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer alice-key"},
        {"authorization": "bearer alice-key"},
        {"x-api-key": "alice-key"},
        {"sec-websocket-protocol": "realtime, openai-insecure-api-key.alice-key"},
    ],
)
def test_a_key_is_taken_from_each_of_its_places(app: Any, headers: dict[str, str]) -> None:
    assert asyncio.run(request(app, "/v1/models", headers)).status == 200
    assert app.seen == [owner_of("alice-key")]


@pytest.mark.parametrize("path", ["/", "/health", "/ready", "/page/js/main.js", "/openapi.json"])
def test_what_says_nothing_of_users_needs_no_key(app: Any, path: str) -> None:
    assert asyncio.run(request(app, path, {})).status == 200


@pytest.mark.parametrize("keys", [KEYS, ()])
@pytest.mark.parametrize(
    ("path", "key", "status"),
    [
        ("/metrics", "metrics-key", 200),
        ("/metrics", "alice-key", 401),
        ("/metrics", "", 401),
        ("/v1/models", "metrics-key", 401),
        ("/v1/models", "alice-key", 200),
    ],
)
def test_a_key_of_metrics_opens_metrics_alone_and_no_other_key_does(
    keys: tuple[str, ...], path: str, key: str, status: int
) -> None:
    app = FastAPI()

    @app.get("/{path:path}")
    def who(path: str) -> dict[str, str]:
        return {"path": path}

    guarded = AuthMiddleware(app, keys, "metrics-key")
    answer = asyncio.run(request(guarded, path, {"authorization": f"Bearer {key}"}))
    is_open = not keys and path != "/metrics"
    assert answer.status == (200 if is_open else status)


def test_a_socket_without_a_key_is_never_accepted(app: Any) -> None:
    sent = asyncio.run(websocket(app, "/v1/realtime", {}))
    assert [message["type"] for message in sent] == ["websocket.close"]


def test_owners_differ_and_do_not_tell_the_key() -> None:
    owners = {owner_of(key) for key in KEYS}
    assert len(owners) == 2
    assert not any(key in owner for key in KEYS for owner in owners)
