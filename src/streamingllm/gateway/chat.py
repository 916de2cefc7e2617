"""Chat completions: recall before the request is sent on, keep the turn once it is answered."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from hashlib import blake2b
from typing import Any
from weakref import WeakValueDictionary

import httpx2
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from streamingllm.gateway.chat_body import (
    AnswerReader,
    facts_of,
    text_of,
    told_in,
    with_facts,
    with_recall,
)
from streamingllm.gateway.turn_memory import Turn, TurnMemory
from streamingllm.gateway.upstream import Upstream, error_of, passed_headers
from streamingllm.server.errors import ApiError, api_error_of, error_body
from streamingllm.server.identity import identity_of

_RETRY_HEADER = "x-stainless-retry-count"  # of the clients of OpenAI
_OWNER_BYTES = 8


class ChatGateway:
    """Answer chat completions of named sessions with what the memory recalls.

    Turns of one session run one after the other. A turn is kept when its answer is whole.

    Args:
        upstream: that answers.
        turns: the memory.
    """

    def __init__(self, upstream: Upstream, turns: TurnMemory) -> None:
        self._upstream = upstream
        self._turns = turns
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def answer(self, request: Request) -> Response:
        """Answer a request; one without a session is passed on as it is."""
        raw = await request.body()
        try:
            body = json.loads(raw)
        except ValueError as error:
            raise ApiError(400, "The body is no JSON; send one object", code="invalid_json") from (
                error
            )
        name = session_name(request, body)
        if name is None:
            return await passed_on(self._upstream, request, raw)
        session = f"{owner_of(request)}:{name}"
        async with AsyncExitStack() as held:
            await held.enter_async_context(self._locks.setdefault(session, asyncio.Lock()))
            is_retry = request.headers.get(_RETRY_HEADER, "0") != "0"
            turn = await asyncio.to_thread(
                self._turns.begin, session, told_in(body), is_retry=is_retry
            )
            told = json.dumps(with_recall(body, turn)).encode()
            answer = await held.enter_async_context(sent(self._upstream, request, told))
            if answer.status_code != 200:
                failed = error_of(answer.status_code, await answer.aread())
                headers = passed_headers(answer.headers)
                return JSONResponse(failed, answer.status_code, headers=without_type(headers))
            facts, headers = facts_of(name, turn), passed_headers(answer.headers)
            headers["x-session-id"] = name
            if "text/event-stream" in answer.headers.get("content-type", ""):
                events = self._events(answer, turn, AnswerReader(facts), held.pop_all())
                return StreamingResponse(events, headers=headers)
            found, said = completion_of(await answer.aread())
            await asyncio.to_thread(self._turns.end, turn, said)
            return JSONResponse(with_facts(found, facts), headers=without_type(headers))

    async def _events(
        self, answer: httpx2.Response, turn: Turn, reader: AnswerReader, held: AsyncExitStack
    ) -> AsyncIterator[bytes]:
        """Pass the lines of a stream on; a failure is its last event."""
        async with held:
            try:
                async for line in answer.aiter_lines():
                    yield f"{reader.line(line)}\n".encode()
            except httpx2.TransportError as error:
                told = error_body("openai", api_error_of(ApiError(502, f"upstream: {error}")))
                yield f"data: {json.dumps(told)}\n\n".encode()
            if reader.is_whole:
                await asyncio.to_thread(self._turns.end, turn, reader.text)


def session_name(request: Request, body: Any) -> str | None:
    """Return the session that a request names; None if it names none.

    Raises:
        ApiError: the body is no object.
        InputError: the name has characters that no header can carry.
    """
    if not isinstance(body, dict):
        raise ApiError(400, "The body is no JSON object; send one", code="invalid_json")
    metadata = body.get("metadata")
    identity, is_side_task = identity_of(
        request.headers, metadata if isinstance(metadata, Mapping) else None
    )
    return None if is_side_task or identity.kind == "transcript" else identity.id


def completion_of(body: bytes) -> tuple[dict[str, Any], str]:
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


def sent(upstream: Upstream, request: Request, body: bytes) -> Any:
    """Send a request on; see `Upstream.answer`."""
    return upstream.answer(
        request.method, request.url.path, request.url.query, request.headers, body
    )


def without_type(headers: Mapping[str, str]) -> dict[str, str]:
    """Return headers for an answer that says its own type."""
    return {name: value for name, value in headers.items() if name != "content-type"}


async def passed_on(upstream: Upstream, request: Request, body: bytes) -> Response:
    """Return the upstream's answer to a request as it comes."""
    held = AsyncExitStack()
    answer = await held.enter_async_context(sent(upstream, request, body))

    async def pieces() -> AsyncIterator[bytes]:
        async with held:
            async for piece in answer.aiter_raw():
                yield piece

    return StreamingResponse(pieces(), answer.status_code, passed_headers(answer.headers))
