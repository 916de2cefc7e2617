"""Pass requests on to a server of OpenAI's API, and note what it was sent and what it counted.

It needs nothing of this project, as `gateway_turns`, which starts it.
"""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

_CHAT = "/v1/chat/completions"


class _Proxy(ThreadingHTTPServer):
    """Hold the server's address and the chat completions so far, in the order of their arrival."""

    daemon_threads = True

    def __init__(self, port: int, upstream: str) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        address = urlsplit(upstream)
        self.target = (address.hostname or "", address.port or 80)
        self.asked: list[dict[str, Any]] = []


class _Handler(BaseHTTPRequestHandler):
    server: _Proxy

    def do_GET(self) -> None:
        self._pass_on()

    def do_POST(self) -> None:
        self._pass_on()

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        # All names are there at once, because another thread may read them meanwhile.
        noted = dict[str, Any].fromkeys(("messages", "max_tokens", "status", "usage"))
        if self.path == _CHAT:
            sent = json.loads(body)
            noted["messages"], noted["max_tokens"] = sent.get("messages"), sent.get("max_tokens")
            self.server.asked.append(noted)
        connection = http.client.HTTPConnection(*self.server.target, timeout=600)
        connection.request(self.command, self.path, body, dict(self.headers))
        answer = connection.getresponse()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                self.send_header(name, value)
        self.end_headers()
        said = b""
        while piece := answer.read1():
            self.wfile.write(piece)
            said += piece
        connection.close()
        noted["usage"] = usage_in(said)
        noted["status"] = answer.status

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def usage_in(answer: bytes) -> dict[str, Any] | None:
    """Return what an answer, streamed or whole, says that its tokens were; None without it."""
    found = None
    for line in answer.decode(errors="replace").splitlines():
        try:
            told = json.loads(line.removeprefix("data:"))
        except ValueError:
            continue
        found = (told.get("usage") if isinstance(told, dict) else None) or found
    return found


@dataclass(frozen=True)
class Recording:
    """Hold where a proxy listens, and the chat completions that it was sent, which grow."""

    url: str
    asked: list[dict[str, Any]]


@contextmanager
def recording(port: int, upstream: str) -> Iterator[Recording]:
    """Listen before a server.

    Args:
        port: to listen at, on 127.0.0.1; 0 for a free one.
        upstream: address of the server, without a path.
    """
    with _Proxy(port, upstream) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        try:
            yield Recording(f"http://127.0.0.1:{proxy.server_port}", proxy.asked)
        finally:
            proxy.shutdown()
