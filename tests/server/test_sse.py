"""Server-sent events: bytes, pings, and clients that go away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from starlette.types import Message

from streamingllm.server.encoders.common import to_json
from streamingllm.server.sse import PING, SseResponse, sse_event

pytestmark = pytest.mark.anyio


def test_an_event_has_line_feeds_only_and_ends_with_a_blank_line() -> None:
    assert sse_event("[DONE]") == b"data: [DONE]\n\n"
    assert sse_event("{}", "ping") == b"event: ping\ndata: {}\n\n"
    assert sse_event("a\nb") == b"data: a\ndata: b\n\n"


def test_an_event_is_one_line_however_lines_are_told_apart() -> None:
    said = {"content": "a\x85b\u2028c\u2029d\ne\x0cf\x1cg"}
    data, *rest = sse_event(to_json(said)).decode().splitlines()
    assert rest == [""]
    assert json.loads(data.removeprefix("data: ")) == said


class Client:
    """A client that stays until it is told to leave."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.left = asyncio.Event()

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    async def receive(self) -> Message:
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def get(self, response: SseResponse) -> list[bytes]:
        await response({"type": "http"}, self.receive, self.send)
        return [message["body"] for message in self.sent if message["type"].endswith("body")]


async def test_each_event_is_one_write() -> None:
    async def events() -> AsyncGenerator[bytes, None]:
        yield b"data: 1\n\n"
        yield b"data: 2\n\n"

    client = Client()
    assert await client.get(SseResponse(events(), {"x-a": "b"})) == [
        b"data: 1\n\n",
        b"data: 2\n\n",
        b"",
    ]
    headers = dict(client.sent[0]["headers"])
    assert headers[b"content-type"].startswith(b"text/event-stream")
    assert headers[b"x-a"] == b"b"
    assert b"content-length" not in headers


async def test_pings_fill_a_silence() -> None:
    async def events() -> AsyncGenerator[bytes, None]:
        while len(client.sent) < 4:
            await asyncio.sleep(0)
        yield b"data: 1\n\n"

    client = Client()
    found = await client.get(SseResponse(events(), {}, ping_seconds=0.01))
    assert found[:3] == [PING] * 3
    assert found[-2:] == [b"data: 1\n\n", b""]


async def test_an_error_before_the_first_event_is_no_stream() -> None:
    async def events() -> AsyncGenerator[bytes, None]:
        if client.sent == []:
            raise ValueError("refused")
        yield b"data: 1\n\n"

    client = Client()
    with pytest.raises(ValueError, match="refused"):
        await client.get(SseResponse(events(), {}))
    assert client.sent == []


async def test_a_client_that_goes_away_closes_the_events() -> None:
    log: list[Any] = []

    async def events() -> AsyncGenerator[bytes, None]:
        try:
            yield b"data: 1\n\n"
            client.left.set()
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0)
            log.append("closed")

    client = Client()
    await client.get(SseResponse(events(), {}))
    assert log == ["closed"]
