"""Bodies and requests beyond a bound are refused in the shape of the API."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse

from streamingllm.server.limits import BodyLimitMiddleware, KeyLimitMiddleware
from tests.server.asgi import Answer, request


async def echo(scope: Any, receive: Any, send: Any) -> None:
    body = await Request(scope, receive).body()
    await PlainTextResponse(str(len(body)))(scope, receive, send)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
@pytest.mark.parametrize("says_length", [True, False])
@pytest.mark.parametrize("num_bytes", [0, 99, 100, 101, 5000])
def test_a_body_is_bounded(path: str, says_length: bool, num_bytes: int) -> None:
    app = BodyLimitMiddleware(echo, 100)
    headers = {"content-length": str(num_bytes)} if says_length else {}
    chunks = [b"x" * min(40, num_bytes - at) for at in range(0, num_bytes, 40)] or [b""]
    answer = asyncio.run(request(app, path, headers, method="POST", chunks=chunks))
    if num_bytes <= 100:
        assert (answer.status, answer.body) == (200, str(num_bytes).encode())
    else:
        assert answer.status == 413
        assert "max_body_bytes=100" in answer.json()["error"]["message"]


async def answers(app: Any, owners: list[str], hold: asyncio.Event | None) -> list[Answer]:
    async def one(owner: str) -> Answer:
        async def owned(scope: Any, receive: Any, send: Any) -> None:
            scope["state"]["owner"] = owner
            await app(scope, receive, send)

        return await request(owned, "/v1/models", {})

    tasks = [asyncio.create_task(one(owner)) for owner in owners]
    await asyncio.sleep(0)
    if hold is not None:
        hold.set()
    return await asyncio.gather(*tasks)


def test_requests_of_one_key_at_once_are_bounded() -> None:
    async def run() -> list[int]:
        hold = asyncio.Event()

        async def slow(scope: Any, receive: Any, send: Any) -> None:
            await hold.wait()
            await PlainTextResponse("")(scope, receive, send)

        app = KeyLimitMiddleware(slow, 2, 0)
        found = await answers(app, ["a", "a", "a", "b"], hold)
        again = await answers(app, ["a"], None)
        return [answer.status for answer in (*found, *again)]

    assert asyncio.run(run()) == [200, 200, 429, 200, 200]


def test_requests_of_one_key_a_minute_are_bounded() -> None:
    now = 0.0

    async def run() -> None:
        nonlocal now
        app = KeyLimitMiddleware(echo, 10, 3, clock=lambda: now)
        found = await answers(app, ["a"] * 4 + ["b"], None)
        assert [answer.status for answer in found] == [200, 200, 200, 429, 200]
        assert found[3].headers["retry-after"]
        assert found[3].json()["error"]["type"] == "rate_limit_error"
        left = [answer.headers["x-ratelimit-remaining-requests"] for answer in found[:3]]
        assert left == ["2", "1", "0"]
        now = 20.0  # a third of a minute: one request more
        found = await answers(app, ["a", "a"], None)
        assert [answer.status for answer in found] == [200, 429]

    asyncio.run(run())
