"""Call an application with a forwarded request, and yield what it sends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

from starlette.types import ASGIApp, Message, Receive, Scope

from streamingllm.cluster.forwarding import (
    AnswerPart,
    AnswerStart,
    ForwardedAttempt,
    ForwardedRequest,
    ReplicaPart,
)
from streamingllm.sessions.turn_attempt import TurnAttempt

_running: set[asyncio.Task[None]] = set()  # the event loop holds tasks by weak references only


async def call_app(
    app: ASGIApp, request: ForwardedRequest, attempt: ForwardedAttempt
) -> AsyncGenerator[ReplicaPart, None]:
    """Yield the answer of an application; closing the iterator is a client that goes away."""
    sent: asyncio.Queue[Message | None] = asyncio.Queue()
    has_gone = asyncio.Event()
    token_ids: list[int] = []

    def note(ids: Sequence[int]) -> None:
        token_ids.extend(ids)

    own = TurnAttempt(
        attempt.turn_id,
        attempt.started_seconds,
        attempt.sent_ids,
        attempt.dead_holders,
        attempt.may_be_journalled,
        note,
    )
    with own.running():
        task = asyncio.create_task(_call(app, _scope(request), _receiver(request, has_gone), sent))
    _running.add(task)
    task.add_done_callback(_running.discard)
    try:
        while (message := await sent.get()) is not None:
            if message["type"] == "http.response.start":
                headers = ((bytes(n), bytes(v)) for n, v in message.get("headers", ()))
                yield AnswerStart(message["status"], tuple(headers))
            elif message["type"] == "http.response.body":
                ids, token_ids[:] = tuple(token_ids), ()
                yield AnswerPart(message.get("body", b""), ids)
        task.result()
    finally:
        has_gone.set()


async def _call(
    app: ASGIApp, scope: Scope, receive: Receive, sent: asyncio.Queue[Message | None]
) -> None:
    try:
        await app(scope, receive, sent.put)
    finally:
        sent.put_nowait(None)


def _receiver(request: ForwardedRequest, has_gone: asyncio.Event) -> Receive:
    is_read = False

    async def receive() -> Message:
        nonlocal is_read
        if not is_read:
            is_read = True
            return {"type": "http.request", "body": request.body, "more_body": False}
        await has_gone.wait()
        return {"type": "http.disconnect"}

    return receive


def _scope(request: ForwardedRequest) -> Scope:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": request.scheme,
        "path": request.path,
        "raw_path": request.raw_path,
        "query_string": request.query,
        "root_path": "",
        "headers": [*request.headers],
        "client": request.client,
        "server": request.server,
        "state": {},
    }
