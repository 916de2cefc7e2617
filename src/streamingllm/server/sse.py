"""Send server-sent events: one write for each, and pings while there is nothing to say."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

PING = b": ping\n\n"
DEFAULT_PING_SECONDS = 15.0
# `str.splitlines`, by which some clients read events, ends a line at these characters too.
_LINE_ENDS = {ord(end): f"\\u{ord(end):04x}" for end in "\x85\u2028\u2029"}


def in_one_line(json: str) -> str:
    """Return JSON without characters in its strings at which a reader may end a line."""
    return json.translate(_LINE_ENDS)


def sse_event(data: str, event: str | None = None) -> bytes:
    """Return an event as bytes, the blank line included; lines end with LF only.

    Args:
        data: JSON, or a mark such as `[DONE]`.
        event: its name.
    """
    name = "" if event is None else f"event: {event}\n"
    lines = "".join(f"data: {line}\n" for line in in_one_line(data).split("\n"))
    return f"{name}{lines}\n".encode()


class SseResponse(Response):
    """Send events as they come, until they end or the client goes away.

    Args:
        events: closed when the response ends; the first is awaited before the status is sent, so
            that an error before it is an answer of its own.
        headers: of the answer.
        ping_seconds: a comment is sent after so long without an event.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        events: AsyncGenerator[bytes, None],
        headers: Mapping[str, str],
        ping_seconds: float = DEFAULT_PING_SECONDS,
    ) -> None:
        super().__init__(
            headers={"cache-control": "no-cache", "x-accel-buffering": "no", **headers}
        )
        del self.headers["content-length"]
        self._events = events
        self._ping_seconds = ping_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events; a client that goes away cancels whoever makes them, once."""
        sending = asyncio.create_task(self._send_all(send))
        gone = asyncio.create_task(_disconnected(receive))
        try:
            await asyncio.wait((sending, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            if not sending.done():
                sending.cancel()
            await asyncio.wait((sending,))
        if not sending.cancelled():
            sending.result()

    async def _send_all(self, send: Send) -> None:
        async with contextlib.aclosing(self._events) as events:
            pending = asyncio.ensure_future(anext(events))
            try:
                await asyncio.wait((pending,), timeout=self._ping_seconds)
                error = pending.exception() if pending.done() else None
                if error is not None and not isinstance(error, StopAsyncIteration):
                    raise error
                await send(self._start())
                while True:
                    if not pending.done():
                        await send(_body(PING))
                        await asyncio.wait((pending,), timeout=self._ping_seconds)
                        continue
                    await send(_body(pending.result()))
                    pending = asyncio.ensure_future(anext(events))
                    await asyncio.wait((pending,), timeout=self._ping_seconds)
            except StopAsyncIteration:
                await send({"type": "http.response.body", "body": b"", "more_body": False})
            except OSError as error:
                raise ClientDisconnect from error
            finally:
                pending.cancel()
                await asyncio.wait((pending,))

    def _start(self) -> Message:
        status = self.status_code
        return {"type": "http.response.start", "status": status, "headers": self.raw_headers}


def _body(chunk: bytes) -> Message:
    return {"type": "http.response.body", "body": chunk, "more_body": True}


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
