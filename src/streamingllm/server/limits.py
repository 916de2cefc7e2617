"""Bounds on what one client may ask for."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from streamingllm.server.answers import refuse
from streamingllm.server.errors import ApiError

_API = "/v1/"


class BodyTooLongError(Exception):
    """A request sends more bytes than it may."""


class BodyLimitMiddleware:
    """Refuse bodies that are too long, also those that do not say how long they are.

    Args:
        app: to pass requests on to.
        max_bytes: of a body.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it with 413."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        lengths = [value for name, value in scope["headers"] if name == b"content-length"]
        if lengths and lengths[0].isdigit() and int(lengths[0]) > self._max_bytes:
            await refuse(scope, receive, send, self._error())
            return
        num_bytes, has_started = 0, False

        async def counted() -> Message:
            nonlocal num_bytes
            message = await receive()
            num_bytes += len(message.get("body", b""))
            if num_bytes > self._max_bytes:
                raise BodyTooLongError
            return message

        async def noted(message: Message) -> None:
            nonlocal has_started
            has_started = True
            await send(message)

        try:
            await self._app(scope, counted, noted)
        except BodyTooLongError:
            if not has_started:
                await refuse(scope, receive, send, self._error())

    def _error(self) -> ApiError:
        return ApiError(
            413,
            f"The body is longer than max_body_bytes={self._max_bytes}; send less at a time",
            code="request_too_large",
        )


class KeyLimitMiddleware:
    """Bound the requests of one key, those at once and those of a minute.

    Args:
        app: to pass requests on to; `scope["state"]["owner"]` is set.
        max_at_once: requests that run.
        max_per_minute: requests that begin; 0 for any number.
        clock: seconds.
    """

    def __init__(
        self,
        app: ASGIApp,
        max_at_once: int,
        max_per_minute: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app = app
        self._max_at_once = max_at_once
        self._max_per_minute = max_per_minute
        self._clock = clock
        self._running: Counter[str] = Counter()
        self._buckets: dict[str, tuple[float, float]] = {}  # requests left, and when

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it with 429."""
        if scope["type"] not in ("http", "websocket") or not scope["path"].startswith(_API):
            await self._app(scope, receive, send)
            return
        owner = scope["state"]["owner"]
        if self._running[owner] >= self._max_at_once:
            await refuse(scope, receive, send, self._too_many("at once", self._max_at_once))
            return
        left = self._take(owner)
        if left is not None and left < 0:
            await refuse(scope, receive, send, self._too_many("a minute", self._max_per_minute))
            return

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start" and left is not None:
                message["headers"] = [
                    *message.get("headers", []),
                    (b"x-ratelimit-limit-requests", str(self._max_per_minute).encode()),
                    (b"x-ratelimit-remaining-requests", str(int(left)).encode()),
                ]
            await send(message)

        self._running[owner] += 1
        try:
            await self._app(scope, receive, noted)
        finally:
            self._running[owner] -= 1
            if not self._running[owner]:
                del self._running[owner]

    def _take(self, owner: str) -> float | None:
        """Take a request of an owner's bucket; return what is left, negative if it was empty."""
        if not self._max_per_minute:
            return None
        now = self._clock()
        left, at = self._buckets.get(owner, (float(self._max_per_minute), now))
        left = min(self._max_per_minute, left + (now - at) * self._max_per_minute / 60)
        if left < 1:
            return -1.0
        self._buckets[owner] = (left - 1, now)
        return left - 1

    def _too_many(self, unit: str, most: int) -> ApiError:
        return ApiError(
            429,
            f"The key has more than {most} requests {unit}; retry later",
            code="rate_limit_exceeded",
        )
