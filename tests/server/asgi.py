"""Call an ASGI application without a network."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Answer:
    """What an application sent."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    def json(self) -> Any:
        return json.loads(self.body)


async def request(
    app: Any,
    path: str,
    headers: Mapping[str, str],
    *,
    method: str = "GET",
    chunks: Iterable[bytes] = (b"",),
) -> Answer:
    """The answer to a request whose body comes in chunks."""
    parts = list(chunks)
    answer = Answer()

    async def receive() -> dict[str, Any]:
        if not parts:
            return {"type": "http.disconnect"}
        body = parts.pop(0)
        return {"type": "http.request", "body": body, "more_body": bool(parts)}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = {k.decode(): v.decode() for k, v in message["headers"]}
        else:
            answer.body += message.get("body", b"")

    await app(_scope("http", path, headers) | {"method": method}, receive, send)
    return answer


async def websocket(app: Any, path: str, headers: Mapping[str, str]) -> list[dict[str, Any]]:
    """What an application sends to a socket that says nothing."""
    sent: list[dict[str, Any]] = []
    received: list[dict[str, Any]] = [
        {"type": "websocket.connect"},
        {"type": "websocket.disconnect", "code": 1000},
    ]

    async def receive() -> dict[str, Any]:
        return received.pop(0)

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(_scope("websocket", path, headers) | {"subprotocols": []}, receive, send)
    return sent


def _scope(kind: str, path: str, headers: Mapping[str, str]) -> dict[str, Any]:
    named = {"host": "localhost:8080", **headers}
    return {
        "type": kind,
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode()) for name, value in named.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8080),
        "state": {},
    }
