"""Chat completions: recall before the request is sent on, keep the turn once it is answered."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any
from weakref import WeakValueDictionary

import httpx2
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from streamingllm.gateway.chat_body import (
    AnswerReader,
    Facts,
    Json,
    text_of,
    told_in,
    with_messages,
    with_recall,
)
from streamingllm.gateway.rollover import Rollover, Visible
from streamingllm.gateway.turn_memory import Asked, Turn, TurnMemory
from streamingllm.gateway.upstream import (
    Upstream,
    error_of,
    event_lines,
    is_too_long,
    passed_headers,
)
from streamingllm.gateway.warmer import Warmer
from streamingllm.server.errors import ApiError, api_error_of, error_body
from streamingllm.server.forgetting import recall_fields, view_fields, view_headers
from streamingllm.server.identity import METADATA_FIELD, identity_of, without_identity
from streamingllm.sessions.session import session_key

_RETRY_HEADER = "x-stainless-retry-count"  # of the clients of OpenAI
_OWNER_BYTES = 8
# Of the limit, for a request that the server finds too long: estimates of tokens may be too low.
_SHARES = (1.0, 0.75, 0.5)
_REFUSED = (400, 413, 422)


class ChatGateway:
    """Answer chat completions with what the memory of their session recalls.

    A session is found by its name, or by the messages that a request repeats. Turns of a named
    session run one after the other. A turn is kept when its answer is whole. With a rollover,
    requests are kept within the context limit of the server, side tasks as well.

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
        self._running: Counter[str] = Counter()

    async def close(self) -> None:
        """End what runs in the background."""
        await self._warmer.close()

    def is_running(self, owner: str, session_id: str) -> bool:
        """Return whether a turn of a session runs."""
        return self._running[session_key(owner, session_id)] > 0

    async def answer(self, request: Request) -> Response:
        """Answer a request; a side task has no session and is passed on, as far as it fits."""
        raw = await request.body()
        body = _object_of(raw)
        asked = turn_asked(request, body)
        if asked is None and self._rollover is None:
            return await passed_on(self._upstream, request, raw)
        async with AsyncExitStack() as held:
            if asked is not None and asked.identity.kind == "session":
                key = session_key(asked.owner, asked.identity.id)
                lock = self._locks.setdefault(key, asyncio.Lock())
                await held.enter_async_context(lock)
            sent = await self._send(request, body, asked, held)
            held.push(sent.running)
            answer, headers = sent.answer, passed_headers(sent.answer.headers)
            if answer.status_code != 200:
                failed = error_of(answer.status_code, await answer.aread())
                return JSONResponse(failed, answer.status_code, headers=without_type(headers))
            if sent.turn is not None:
                headers |= view_headers(sent.turn.view)
                sent.running.enter_context(self._counted(sent.turn))
            facts = sent.facts
            if "text/event-stream" in answer.headers.get("content-type", ""):
                events = self._events(request, sent, AnswerReader(facts), held.pop_all())
                return StreamingResponse(events, headers=headers)
            found, said = completion_of(await answer.aread())
            await self._end(request, sent, said)
            return JSONResponse(facts.added_to(found), headers=without_type(headers))

    @contextmanager
    def _counted(self, turn: Turn) -> Iterator[None]:
        key = session_key(turn.asked.owner, turn.view.session_id)
        self._running[key] += 1
        try:
            yield
        finally:
            self._running[key] -= 1
            if not self._running[key]:
                del self._running[key]

    async def _send(
        self, request: Request, body: Json, asked: Asked | None, held: AsyncExitStack
    ) -> _Sent:
        """Send a request; less of it if the server says that it is too long."""
        shares = (1.0,) if self._rollover is None else _SHARES
        for share in shares:
            sent_body, visible = body, None
            if self._rollover is not None:
                visible = self._rollover.visible(body, share=share)
                sent_body = with_messages(body, visible.messages)
            turn = None
            if asked is not None:
                turn = await asyncio.to_thread(self._turns.begin, asked, told_in(sent_body))
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
            sent = _Sent(body, answer, turn, visible)
            if answer.status_code not in _REFUSED or not is_too_long(await answer.aread()):
                return sent
        return sent

    async def _events(
        self, request: Request, sent: _Sent, reader: AnswerReader, held: AsyncExitStack
    ) -> AsyncIterator[bytes]:
        """Pass the lines of a stream on; a failure is its last event.

        The turn is kept before the client learns that the answer is whole: it may hang up then.
        """
        async with held:
            is_kept = False
            try:
                async for line in event_lines(sent.answer):
                    told = f"{reader.line(line)}\n".encode()
                    if reader.is_whole and not is_kept:
                        await self._end(request, sent, reader.text)
                        is_kept = True
                    yield told
            except httpx2.TransportError as error:
                failed = error_body("openai", api_error_of(ApiError(502, f"upstream: {error}")))
                yield f"data: {json.dumps(failed)}\n\n".encode()

    async def _end(self, request: Request, sent: _Sent, said: str) -> None:
        """Keep a turn, and warm the server for the next rollover if that is near."""
        if sent.turn is not None:
            await asyncio.to_thread(self._turns.end, sent.turn, said)
            sent.running.close()  # before the client learns of the end, and asks
        if self._rollover is not None and sent.visible is not None and sent.visible.is_long:
            messages = self._rollover.after_next_rollover(sent.body, said)
            self._warmer.start(request, with_messages(sent.body, messages))


@dataclass(frozen=True)
class _Sent:
    """Hold a request, what was made of it, and the answer, whose body may not be read yet."""

    body: Json
    answer: httpx2.Response
    turn: Turn | None
    visible: Visible | None
    running: ExitStack = field(default_factory=ExitStack)

    @property
    def facts(self) -> Facts:
        """Fields that the answer says of its session."""
        if self.turn is None:
            return Facts({} if self.visible is None else self.visible.facts)
        counts = view_fields(replace(self.turn.view, recall=None))
        own = {**recall_fields(self.turn.recall), "message_id": self.turn.answer_id}
        own["session_id"] = counts.pop("session_id")
        # What was not cut is left to a server that may evict, and says so.
        return Facts(own, counts) if self.visible is None else Facts({**counts, **own})


def _object_of(raw: bytes) -> Json:
    try:
        body = json.loads(raw)
    except ValueError as error:
        raise ApiError(400, "The body is no JSON; send one object", code="invalid_json") from error
    if not isinstance(body, dict):
        raise ApiError(400, "The body is no JSON object; send one", code="invalid_json")
    return body


def turn_asked(request: Request, body: Mapping[str, Any]) -> Asked | None:
    """Return what a request asks of its session; None for a side task, which has none.

    Raises:
        InputError: it names a session by characters that no header can carry, or has no messages.
    """
    given = body.get("metadata")
    metadata = given if isinstance(given, Mapping) else {}
    identity, is_side_task = identity_of(request.headers, metadata)
    told = tuple(told_in(body))
    if is_side_task:
        return None
    is_retry = request.headers.get(_RETRY_HEADER, "0") != "0"
    texts = {
        name: value
        for name, value in metadata.items()
        if isinstance(value, str) and name != METADATA_FIELD
    }
    return Asked(owner_of(request), identity, told, is_retry, texts)


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
