"""Chat completions: recall before the request is sent on, keep the turn once it is answered."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any
from weakref import WeakValueDictionary

import httpx2
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from streamingllm.gateway.chat_body import (
    AnswerReader,
    Json,
    facts_of,
    text_of,
    told_in,
    with_facts,
    with_messages,
    with_recall,
)
from streamingllm.gateway.rollover import Rollover, Visible
from streamingllm.gateway.turn_memory import Turn, TurnMemory
from streamingllm.gateway.upstream import Upstream, error_of, is_too_long, passed_headers
from streamingllm.gateway.warmer import Warmer
from streamingllm.server.errors import ApiError, api_error_of, error_body
from streamingllm.server.identity import identity_of, without_identity

_RETRY_HEADER = "x-stainless-retry-count"  # of the clients of OpenAI
_OWNER_BYTES = 8
# Of the limit, for a request that the server finds too long: estimates of tokens may be too low.
_SHARES = (1.0, 0.75, 0.5)
_REFUSED = (400, 413, 422)


class ChatGateway:
    """Answer chat completions of named sessions with what the memory recalls.

    Turns of one session run one after the other. A turn is kept when its answer is whole. With a
    rollover, requests of any kind are kept within the context limit of the server.

    Args:
        upstream: that answers.
        turns: the memory.
        rollover: chooses what of a request is sent; None to send all of it.
    """

    def __init__(
        self, upstream: Upstream, turns: TurnMemory, rollover: Rollover | None = None
    ) -> None:
        self._upstream = upstream
        self._turns = turns
        self._rollover = rollover
        self._warmer = Warmer(upstream)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def close(self) -> None:
        """End what runs in the background."""
        await self._warmer.close()

    async def answer(self, request: Request) -> Response:
        """Answer a request; one without a session is passed on, as far as it fits."""
        raw = await request.body()
        body = _object_of(raw)
        name = session_name(request, body)
        if name is None and self._rollover is None:
            return await passed_on(self._upstream, request, raw)
        session = None if name is None else f"{owner_of(request)}:{name}"
        async with AsyncExitStack() as held:
            if session is not None:
                lock = self._locks.setdefault(session, asyncio.Lock())
                await held.enter_async_context(lock)
            asked = await self._ask(request, body, session, held)
            answer, headers = asked.answer, passed_headers(asked.answer.headers)
            if answer.status_code != 200:
                failed = error_of(answer.status_code, await answer.aread())
                return JSONResponse(failed, answer.status_code, headers=without_type(headers))
            if name is not None:
                headers["x-session-id"] = name
            facts = asked.facts(name)
            if "text/event-stream" in answer.headers.get("content-type", ""):
                events = self._events(request, asked, AnswerReader(facts), held.pop_all())
                return StreamingResponse(events, headers=headers)
            found, said = completion_of(await answer.aread())
            await self._end(request, asked, said)
            return JSONResponse(with_facts(found, facts), headers=without_type(headers))

    async def _ask(
        self, request: Request, body: Json, session: str | None, held: AsyncExitStack
    ) -> _Asked:
        """Send a request; less of it if the server says that it is too long."""
        is_retry = request.headers.get(_RETRY_HEADER, "0") != "0"
        told = told_in(body)
        shares = (1.0,) if self._rollover is None else _SHARES
        for share in shares:
            sent_body, visible = body, None
            if self._rollover is not None:
                visible = self._rollover.visible(body, share=share)
                sent_body = with_messages(body, visible.messages)
            turn = None
            if session is not None:
                turn = await asyncio.to_thread(
                    self._turns.begin, session, told, sent=told_in(sent_body), is_retry=is_retry
                )
                if self._rollover is not None:
                    turn = self._rollover.fitting(turn)
                sent_body = with_recall(sent_body, turn)
            raw = json.dumps(sent_body).encode()
            # A server with sessions of its own would take the rest of a history for a new one's.
            headers = (
                dict(request.headers) if visible is None else without_identity(request.headers)
            )
            answering = self._upstream.answer(
                request.method, request.url.path, request.url.query, headers, raw
            )
            answer = await held.enter_async_context(answering)
            asked = _Asked(body, answer, turn, visible)
            if answer.status_code not in _REFUSED or not is_too_long(await answer.aread()):
                return asked
        return asked

    async def _events(
        self, request: Request, asked: _Asked, reader: AnswerReader, held: AsyncExitStack
    ) -> AsyncIterator[bytes]:
        """Pass the lines of a stream on; a failure is its last event.

        The turn is kept before the client learns that the answer is whole: it may hang up then.
        """
        async with held:
            is_kept = False
            try:
                async for line in asked.answer.aiter_lines():
                    told = f"{reader.line(line)}\n".encode()
                    if reader.is_whole and not is_kept:
                        await self._end(request, asked, reader.text)
                        is_kept = True
                    yield told
            except httpx2.TransportError as error:
                failed = error_body("openai", api_error_of(ApiError(502, f"upstream: {error}")))
                yield f"data: {json.dumps(failed)}\n\n".encode()

    async def _end(self, request: Request, asked: _Asked, said: str) -> None:
        """Keep a turn, and warm the server for the next rollover if that is near."""
        if asked.turn is not None:
            await asyncio.to_thread(self._turns.end, asked.turn, said)
        if self._rollover is not None and asked.visible is not None and asked.visible.is_long:
            messages = self._rollover.after_next_rollover(asked.body, said)
            self._warmer.start(request, with_messages(asked.body, messages))


@dataclass(frozen=True)
class _Asked:
    """Hold a request, what was made of it, and the answer, whose body may not be read yet."""

    body: Json
    answer: httpx2.Response
    turn: Turn | None
    visible: Visible | None

    def facts(self, session: str | None) -> Json:
        """Return the field `streamingllm` of the answer."""
        seen = {} if self.visible is None else self.visible.facts
        return seen if self.turn is None else {**facts_of(session or "", self.turn), **seen}


def _object_of(raw: bytes) -> Json:
    try:
        body = json.loads(raw)
    except ValueError as error:
        raise ApiError(400, "The body is no JSON; send one object", code="invalid_json") from error
    if not isinstance(body, dict):
        raise ApiError(400, "The body is no JSON object; send one", code="invalid_json")
    return body


def session_name(request: Request, body: Mapping[str, Any]) -> str | None:
    """Return the session that a request names; None if it names none.

    Raises:
        InputError: the name has characters that no header can carry.
    """
    metadata = body.get("metadata")
    identity, is_side_task = identity_of(
        request.headers, metadata if isinstance(metadata, Mapping) else None
    )
    return None if is_side_task or identity.kind == "transcript" else identity.id


def completion_of(body: bytes) -> tuple[Json, str]:
    """Return an upstream's answer and its text.

    Raises:
        ApiError: it is no chat completion (502).
    """
    try:
        found = json.loads(body)
        return found, text_of(found["choices"][0]["message"])
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        shown = body[:200].decode(errors="replace")
        raise ApiError(
            502, f"upstream answered {shown!r}, which is no chat completion", code="upstream_failed"
        ) from error


def owner_of(request: Request) -> str:
    """Return a digest of a client's key, so that no key sees another's sessions."""
    key = request.headers.get("authorization", "")
    return blake2b(key.encode(), digest_size=_OWNER_BYTES).hexdigest()


def without_type(headers: Mapping[str, str]) -> dict[str, str]:
    """Return headers for an answer that says its own type."""
    return {name: value for name, value in headers.items() if name != "content-type"}


async def passed_on(upstream: Upstream, request: Request, body: bytes) -> Response:
    """Return the upstream's answer to a request as it comes."""
    held = AsyncExitStack()
    url = request.url
    answering = upstream.answer(request.method, url.path, url.query, request.headers, body)
    answer = await held.enter_async_context(answering)

    async def pieces() -> AsyncIterator[bytes]:
        async with held:
            async for piece in answer.aiter_raw():
                yield piece

    return StreamingResponse(pieces(), answer.status_code, passed_headers(answer.headers))
