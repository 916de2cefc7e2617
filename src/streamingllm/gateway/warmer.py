"""Let a server read, in the background, what the next rollover will send."""

from __future__ import annotations

import asyncio
import json
import logging

from starlette.requests import Request

from streamingllm.errors import first_line
from streamingllm.gateway.chat_body import Json
from streamingllm.gateway.upstream import Upstream
from streamingllm.server.identity import without_identity

_log = logging.getLogger("streamingllm")


class Warmer:
    """Fill the prefix cache of a server, so that the turn of a rollover need not wait.

    A server without such a cache computes the same twice: do not warm it.

    Args:
        upstream: the server.
    """

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, request: Request, body: Json) -> None:
        """Begin to send `body` with an answer of one token, which nobody reads."""
        fields = {"max_tokens": 1, "stream": False}
        dropped = ("max_completion_tokens", "stream_options", "n", "response_format")
        told = {name: value for name, value in body.items() if name not in dropped} | fields
        task = asyncio.create_task(self._send(request, json.dumps(told).encode()))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Stop what still runs."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _send(self, request: Request, body: bytes) -> None:
        url, headers = request.url, without_identity(request.headers)
        try:
            async with self._upstream.answer("POST", url.path, url.query, headers, body) as answer:
                await answer.aread()
        except Exception as error:  # the next turn is answered all the same
            _log.warning("a rollover was not warmed: %s", first_line(error))
