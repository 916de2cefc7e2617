"""Take requests, and carry each to the engine of its session; repeat turns whose engine dies."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from hashlib import blake2b
from uuid import uuid4

from starlette.types import Receive, Scope, Send

from streamingllm.cluster.forwarding import (
    AnswerPart,
    AnswerStart,
    ForwardedAttempt,
    ForwardedRequest,
    ReplicaDiedError,
    ReplicaGreeting,
    Replicas,
)
from streamingllm.cluster.routing_key import routing_key
from streamingllm.cluster.stream_splice import StreamDiffersError, StreamSplice
from streamingllm.server.answers import refuse
from streamingllm.server.errors import ApiError, error_body
from streamingllm.server.sse import sse_event

ATTEMPTS_HEADER = b"x-streamingllm-attempts"
REPEATED = b": repeated elsewhere\n\n"  # a comment, which clients pass over
_TURNS = frozenset(("/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses"))
_SAFE = frozenset(("GET", "HEAD", "OPTIONS"))
_IDEMPOTENCY = "idempotency-key"
_BACKOFF_SECONDS = 0.05
_log = logging.getLogger("streamingllm.cluster")


class Gateway:
    """Serve the API of all engines as an ASGI application without state.

    Args:
        replicas: engines.
        max_body_bytes: longest request.
        failover_seconds: a turn is repeated for so long.
        session_of: returns the session of a stored response.
    """

    def __init__(
        self,
        replicas: Replicas,
        *,
        max_body_bytes: int,
        failover_seconds: float,
        session_of: Callable[[str], str | None] = lambda _: None,
    ) -> None:
        self._replicas = replicas
        self._max_body_bytes = max_body_bytes
        self._failover_seconds = failover_seconds
        self._session_of = session_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; WebSockets are refused."""
        try:
            if scope["type"] != "http":
                raise ApiError(501, "A cluster serves no WebSockets yet; use HTTP")
            request = await self._read(scope, receive)
        except ApiError as error:
            await refuse(scope, receive, send, error)
            return
        answer = _Answer(request, scope, receive, send)
        work = asyncio.create_task(self._serve(request, answer))
        gone = asyncio.create_task(_gone(receive))
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            if not work.done():
                work.cancel()
                await asyncio.wait((work,))
        if not work.cancelled():
            work.result()

    async def _read(self, scope: Scope, receive: Receive) -> ForwardedRequest:
        body = bytearray()
        while True:
            message = await receive()
            body += message.get("body", b"")
            if len(body) > self._max_body_bytes:
                raise ApiError(413, f"The request is longer than {self._max_body_bytes} bytes")
            if not message.get("more_body", False):
                break
        return ForwardedRequest(
            scope["method"],
            scope["path"],
            scope.get("raw_path") or scope["path"].encode(),
            scope.get("query_string", b""),
            tuple((bytes(name), bytes(value)) for name, value in scope["headers"]),
            bytes(body),
            scope.get("client"),
            scope.get("server"),
            scope.get("scheme", "http"),
        )

    async def _serve(self, request: ForwardedRequest, answer: _Answer) -> None:
        attempt = _first_attempt(request)
        key = await asyncio.to_thread(routing_key, request, attempt.turn_id, self._session_of)
        until = time.monotonic() + self._failover_seconds
        while True:
            try:
                parts = self._replicas.send(key, request, attempt)
                async with contextlib.aclosing(parts):
                    async for part in parts:
                        if isinstance(part, ReplicaGreeting):
                            answer.holder = part.holder
                        else:
                            await answer.add(part)
                await answer.end()
                return
            except StreamDiffersError as error:
                await answer.fail(ApiError(503, str(error), code="replica_died"))
                return
            except ReplicaDiedError as error:
                _log.warning("%s %s: %s", request.method, request.path, error)
                if not _is_repeatable(request) or time.monotonic() > until:
                    await answer.fail(_died(request))
                    return
            attempt = replace(
                attempt,
                sent_ids=max(attempt.sent_ids, answer.take_ids(), key=len),
                dead_holders=attempt.dead_holders | ({answer.holder} if answer.holder else set()),
                may_be_journalled=True,
            )
            answer.begin_again()
            await asyncio.sleep(_BACKOFF_SECONDS)


class _Answer:
    """Send one answer, put together from the attempts at it.

    A stream is passed on event by event; what is none is held until it is whole.
    """

    def __init__(
        self, request: ForwardedRequest, scope: Scope, receive: Receive, send: Send
    ) -> None:
        self.holder = ""
        self._request = request
        self._scope = scope
        self._receive = receive
        self._send = send
        self._splice = StreamSplice()
        self._start: AnswerStart | None = None
        self._has_started = False  # the client has the status
        self._whole = bytearray()
        self._ids: list[int] = []
        self._num_attempts = 1

    def take_ids(self) -> tuple[int, ...]:
        """Return the ids of the answer in this attempt."""
        return tuple(self._ids)

    def begin_again(self) -> None:
        """Forget what was not sent, before another attempt."""
        self.holder, self._start = "", None
        self._num_attempts += 1
        self._whole.clear()
        self._ids.clear()
        self._splice.begin_again()

    async def add(self, part: AnswerStart | AnswerPart) -> None:
        """Take over a part.

        Raises:
            StreamDiffersError: it does not follow on what was sent.
        """
        if isinstance(part, AnswerStart):
            self._start = part
            if self._has_started and not _is_stream(part):
                raise StreamDiffersError("The engine died, and the turn cannot be repeated")
            if _is_stream(part):
                if self._has_started:
                    await self._send_body(REPEATED, is_last=False)
                else:
                    await self._send_start(part)
            return
        self._ids.extend(part.token_ids)
        assert self._start is not None
        if not _is_stream(self._start):
            self._whole += part.body
        elif part.body and self._splice.take(part.body):
            await self._send_body(part.body, is_last=False)

    async def end(self) -> None:
        """Send what was held, and the end."""
        assert self._start is not None
        if not self._has_started:
            await self._send_start(self._start)
        await self._send_body(bytes(self._whole), is_last=True)

    async def fail(self, error: ApiError) -> None:
        """Say what went wrong: as an answer, or as the last event of a stream that began."""
        if not self._has_started:
            await refuse(self._scope, self._receive, self._send, error)
            return
        is_anthropic = self._request.path.startswith("/v1/messages")
        body = json.dumps(error_body("anthropic" if is_anthropic else "openai", error))
        await self._send_body(sse_event(body, "error" if is_anthropic else None), is_last=True)

    async def _send_start(self, start: AnswerStart) -> None:
        self._has_started = True
        headers = [*start.headers, (ATTEMPTS_HEADER, str(self._num_attempts).encode())]
        await self._send(
            {"type": "http.response.start", "status": start.status, "headers": headers}
        )

    async def _send_body(self, body: bytes, *, is_last: bool) -> None:
        await self._send({"type": "http.response.body", "body": body, "more_body": not is_last})


def _first_attempt(request: ForwardedRequest) -> ForwardedAttempt:
    """Return the first attempt at a turn; a client may name the turn, to ask again for it."""
    key = request.header(_IDEMPOTENCY)
    if not key:
        return ForwardedAttempt(uuid4().hex, time.time())
    named = blake2b(digest_size=16)
    for text in (request.header("authorization"), request.header("x-api-key"), key):
        named.update(len(text).to_bytes(8, "little") + text.encode())
    return ForwardedAttempt(named.hexdigest(), time.time(), may_be_journalled=True)


def _is_repeatable(request: ForwardedRequest) -> bool:
    return request.method in _SAFE or (request.method == "POST" and request.path in _TURNS)


def _is_stream(start: AnswerStart) -> bool:
    kinds = (value for name, value in start.headers if name == b"content-type")
    return start.status == 200 and any(kind.startswith(b"text/event-stream") for kind in kinds)


def _died(request: ForwardedRequest) -> ApiError:
    done = (
        "retry later"
        if _is_repeatable(request)
        else "whether it was done is unknown; look, then retry"
    )
    return ApiError(503, f"The engine of the session died; {done}", code="replica_died")


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
