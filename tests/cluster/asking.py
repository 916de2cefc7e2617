"""Requests to a gateway without a network, from a client that stays."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from tests.server.asgi import Answer

HEADERS = {"host": "127.0.0.1", "content-type": "application/json"}


async def ask(
    app: Any, method: str, path: str, body: Any = None, *, leaves_after: int = -1, **headers: str
) -> Answer:
    """The answer to a request; header names have underscores for hyphens.

    Args:
        app: of ASGI.
        method: of the request.
        path: of the request.
        body: JSON-able; None for none.
        leaves_after: parts of the answer after which the client goes away; -1 for never.
        headers: of the request.
    """
    sent = {**HEADERS, **{name.replace("_", "-"): value for name, value in headers.items()}}
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in sent.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    answer, gone = Answer(), asyncio.Event()
    waiting = [b"" if body is None else json.dumps(body).encode()]
    num_parts = 0

    async def receive() -> dict[str, Any]:
        if waiting:
            return {"type": "http.request", "body": waiting.pop(), "more_body": False}
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        nonlocal num_parts
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = {k.decode(): v.decode() for k, v in message["headers"]}
            return
        answer.body += message.get("body", b"")
        num_parts += 1
        if num_parts == leaves_after:
            gone.set()

    await app(scope, receive, send)
    return answer


def events_of(answer: Answer) -> list[Any]:
    """The data of the events of a stream, `[DONE]` as it is."""
    lines = [line[6:] for line in answer.body.decode().split("\n") if line.startswith("data: ")]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def text_of(answer: Answer) -> str:
    """The text of a streamed chat completion."""
    assert answer.status == 200, answer.body
    *events, done = events_of(answer)
    assert done == "[DONE]", answer.body
    choices = [choice for event in events for choice in event["choices"]]
    return "".join(choice["delta"].get("content") or "" for choice in choices)
