"""A package index on this machine, for transfers that go wrong."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest


@dataclass
class WheelIndex:
    """Serve one wheel of the project tiny-model.

    Args:
        wheel: what it serves.
        cut_transfers: how many transfers, from the first on, break off half way.
        stall: whether such a transfer hangs, instead of being closed.
    """

    wheel: Path
    cut_transfers: int = 0
    stall: bool = False
    url: str = ""
    first_bytes: list[int] = field(default_factory=list)
    """Where each transfer began: above 0 for one that goes on with an earlier one."""
    half_sent: threading.Event = field(default_factory=threading.Event)
    closing: threading.Event = field(default_factory=threading.Event)

    def use_with_pip(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Make this the only index that pip knows."""
        monkeypatch.delenv("PIP_NO_INDEX")
        monkeypatch.delenv("PIP_FIND_LINKS")
        monkeypatch.setenv("PIP_INDEX_URL", self.url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@contextmanager
def serve(index: WheelIndex) -> Iterator[WheelIndex]:
    """Serve `index` on a free port for the body."""
    handler = type("Handler", (_Handler,), {"index": index})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    index.url = f"http://127.0.0.1:{server.server_address[1]}/simple"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield index
    finally:
        index.closing.set()
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    index: WheelIndex
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        name = self.index.wheel.name
        if self.path == "/simple/tiny-model/":
            page = f'<a href="/{name}">{name}</a>'.encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)
        elif self.path == f"/{name}":
            self._send_wheel()
        else:
            self.send_error(404)

    def _send_wheel(self) -> None:
        content = self.index.wheel.read_bytes()
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        first = int(asked[1]) if asked else 0
        self.index.first_bytes.append(first)
        self.send_response(206 if asked else 200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", '"wheel"')
        self.send_header("Content-Length", str(len(content) - first))
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if len(self.index.first_bytes) > self.index.cut_transfers:
            self.wfile.write(content[first:])
            return
        self.wfile.write(content[first : len(content) // 2])
        self.wfile.flush()
        self.index.half_sent.set()
        if self.index.stall:
            self.index.closing.wait()
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass
