"""Run turns for HTTP requests: refuse early, stop when the client goes away, answer or stream."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from streamingllm.server.encoders.common import TurnOutcome, collect, first_event, to_json
from streamingllm.server.errors import ApiError, api_error_of
from streamingllm.server.forgetting import view_fields, view_headers
from streamingllm.server.sse import SseResponse, sse_event
from streamingllm.sessions.turn import TurnEnded, TurnEvent, TurnStarted

EVENTS_HEADER = "x-streamingllm-events"
VISIBILITY_EVENT = "streamingllm.visibility"
VISIBILITY_HEADER_VALUE = "visibility"
logger = logging.getLogger(__name__)
T = TypeVar("T")
Encode = Callable[[TurnStarted, AsyncIterator[TurnEvent]], AsyncIterator[bytes]]


async def streamed_turn(
    request: Request,
    events: AsyncGenerator[TurnEvent, None],
    encode: Encode,
    error_event: Callable[[ApiError], bytes],
) -> Response:
    """Return a stream of what `encode` makes of a turn that was accepted.

    With the header `x-streamingllm-events: visibility`, events of our own tell what is visible
    before the answer and after it.

    Args:
        request: of the client.
        events: of the turn.
        encode: makes the bytes of the stream, one item for each event.
        error_event: makes the last event of a stream that fails.

    Raises:
        StreamingLLMError: the turn is refused.
    """
    started = await _started(request, events)
    sees = shows_visibility(request)

    async def encoded() -> AsyncGenerator[bytes, None]:
        ended: list[TurnEnded] = []
        async with contextlib.aclosing(events):
            if sees:
                yield _visibility(started)
            async for chunk in encode(started, _noting_end(events, ended)):
                if sees and ended:
                    yield _visibility(ended.pop())
                yield chunk

    return SseResponse(
        guarded(encoded(), error_event),
        headers=view_headers(started.view),
        ping_seconds=request.app.state.settings.ping_seconds,
    )


def shows_visibility(request: Request) -> bool:
    """Return whether a client asks for events of our own."""
    return request.headers.get(EVENTS_HEADER, "").strip() == VISIBILITY_HEADER_VALUE


async def guarded(
    chunks: AsyncGenerator[bytes, None], error_event: Callable[[ApiError], bytes]
) -> AsyncGenerator[bytes, None]:
    """Yield chunks; an error after the stream began is its last event."""
    async with contextlib.aclosing(chunks):
        try:
            async for chunk in chunks:
                yield chunk
        except Exception as error:
            found = api_error_of(error)
            if found.status >= 500:
                logger.exception("A stream failed after it began.")
            yield error_event(found)


async def answered_turn(
    request: Request,
    events: AsyncGenerator[TurnEvent, None],
    body: Callable[[TurnOutcome], dict[str, Any]],
) -> Response:
    """Return what `body` makes of a whole turn.

    Raises:
        StreamingLLMError: the turn is refused or fails.
    """
    started = await _started(request, events)
    async with contextlib.aclosing(events):
        outcome = await while_connected(request, collect(started, events))
    assert outcome.ended is not None
    return JSONResponse(body(outcome), headers=view_headers(outcome.ended.view))


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Wait for work, and cancel it when the client goes away.

    Raises:
        ClientDisconnect: the client has gone.
    """
    task = asyncio.create_task(work)
    gone = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        gone.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait((task,))


async def _noting_end(
    events: AsyncIterator[TurnEvent], ended: list[TurnEnded]
) -> AsyncIterator[TurnEvent]:
    async for event in events:
        if isinstance(event, TurnEnded):
            ended.append(event)
        yield event


def _visibility(event: TurnStarted | TurnEnded) -> bytes:
    """Return an event of our own, which clients that did not ask for it would refuse."""
    fields = {"type": VISIBILITY_EVENT, "streamingllm": view_fields(event.view)}
    return sse_event(to_json(fields), VISIBILITY_EVENT)


async def _started(request: Request, events: AsyncGenerator[TurnEvent, None]) -> TurnStarted:
    try:
        return await while_connected(request, first_event(events))
    except BaseException:
        await events.aclose()
        raise


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
