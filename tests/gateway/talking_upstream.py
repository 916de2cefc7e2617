"""A server of OpenAI's API that says one sentence, without a model and without a memory."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SENTENCE = "Yes, that is so."
LONG = "long story"
_LONG_SECONDS = 60


class _Talks(BaseHTTPRequestHandler):
    """Stream the sentence, word by word; a long story has no end before its client leaves."""

    def do_GET(self) -> None:
        self._begin("application/json")
        self.wfile.write(json.dumps({"data": [{"id": "talker", "object": "model"}]}).encode())

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        asked = str(body["messages"][-1]["content"])
        self._begin("text/event-stream")
        for word in SENTENCE.split():
            self._tell({"delta": {"content": f"{word} "}})
        try:
            for _ in range(_LONG_SECONDS * 20 if LONG in asked else 0):
                time.sleep(0.05)
                self._tell({"delta": {"content": "And on. "}})
            self._tell({"delta": {}, "finish_reason": "stop"})
            self.wfile.write(b"data: [DONE]\n\n")
        except OSError:
            self.close_connection = True

    def _begin(self, kind: str) -> None:
        self.send_response(200)
        self.send_header("content-type", kind)
        self.end_headers()

    def _tell(self, choice: dict[str, Any]) -> None:
        chunk = {"choices": [{"index": 0, **choice}]}
        self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
        self.wfile.flush()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def talking_upstream() -> Iterator[str]:
    """Serve, and yield the address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Talks) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
