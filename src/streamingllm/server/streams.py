"""Handle one client that feeds a stream without end and asks about it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from pydantic import ValidationError
from starlette.websockets import WebSocketDisconnect

from streamingllm.errors import SessionConflictError, SessionNotFoundError
from streamingllm.server.errors import ApiError, api_error_of
from streamingllm.server.forgetting import view_fields
from streamingllm.server.schemas.streams import FRAME, Ask, Cancel, Feed
from streamingllm.sessions.manager import SessionManager
from streamingllm.sessions.transcript import Message
from streamingllm.sessions.turn import SampleEnded, TextDelta, TurnEnded, TurnRequest
from streamingllm.stream.sampling import SamplingParams

Send = Callable[[str], Awaitable[None]]
_MAX_QUESTIONS = 4


class StreamConnection:
    """Handle the frames of one socket; the stream outlives it.

    Feeds are read in the order they come. Each question is answered on a branch, at the same time.

    Args:
        manager: of the sessions.
        owner: of the client's key.
        send: writes a text frame.
        session_id: of the stream, which is made if it is missing.
        defaults: sampling parameters of the operator.
    """

    def __init__(
        self,
        manager: SessionManager,
        owner: str,
        send: Send,
        *,
        session_id: str,
        defaults: SamplingParams,
    ) -> None:
        self._manager = manager
        self._owner = owner
        self._send_text = send
        self._session_id = session_id
        self._defaults = defaults
        self._questions: dict[str, asyncio.Task[None]] = {}
        self._lock = asyncio.Lock()

    async def start(self) -> None:
        """Make the stream if it is missing, and say what the model sees of it."""
        with contextlib.suppress(SessionConflictError):  # it is there
            await self._manager.create(self._owner, session_id=self._session_id)
        await self._inspect("ready")

    async def receive(self, text: str) -> None:
        """Handle one frame; what is wrong with it is answered as an error."""
        try:
            await self._handle(_parsed(text))
        except Exception as error:
            await self._send_error(error)

    async def close(self) -> None:
        """End the answers, because the client is gone."""
        for task in self._questions.values():
            task.cancel()
        await asyncio.gather(*self._questions.values(), return_exceptions=True)

    async def _handle(self, frame: Any) -> None:
        if isinstance(frame, Feed):
            view = await self._manager.feed(self._owner, self._session_id, frame.text)
            await self._send({"type": "fed", "streamingllm": view_fields(view)})
        elif isinstance(frame, Ask):
            self._ask(frame)
        elif isinstance(frame, Cancel):
            task = self._questions.get(frame.id)
            if task is None:
                raise ApiError(
                    404,
                    f"id={frame.id!r} is no question that is being answered; it may have ended",
                    param="id",
                )
            task.cancel()
        else:
            await self._inspect("view")

    def _ask(self, frame: Ask) -> None:
        if frame.id in self._questions:
            raise ApiError(400, f"id={frame.id!r} is being answered; give each question its own")
        if len(self._questions) >= _MAX_QUESTIONS:
            raise ApiError(
                429, f"{_MAX_QUESTIONS} questions are being answered; wait for one of them"
            )
        task = asyncio.create_task(self._answer(frame))
        self._questions[frame.id] = task
        task.add_done_callback(lambda _: self._questions.pop(frame.id, None))

    async def _answer(self, frame: Ask) -> None:
        params = self._defaults
        if frame.max_tokens is not None:
            params = replace(params, max_new_tokens=frame.max_tokens)
        if frame.temperature is not None:
            params = replace(params, temperature=frame.temperature)
        request = TurnRequest(self._owner, (Message.of_text("user", frame.question),), params)
        text, reason = "", ""
        try:
            asked = self._manager.ask(self._session_id, request)
            async with contextlib.aclosing(asked) as events:
                async for event in events:
                    if isinstance(event, TextDelta) and not event.is_reasoning and event.text:
                        text += event.text
                        await self._send({"type": "delta", "id": frame.id, "text": event.text})
                    elif isinstance(event, SampleEnded):
                        reason = event.reason.value
                    elif isinstance(event, TurnEnded):
                        answer = {"type": "answer", "id": frame.id, "text": text}
                        view = view_fields(event.view)
                        await self._send({**answer, "finish_reason": reason, "streamingllm": view})
        except asyncio.CancelledError:
            cancelled = {"type": "answer", "id": frame.id, "text": text}
            with contextlib.suppress(RuntimeError, WebSocketDisconnect):  # the client is gone
                await self._send({**cancelled, "finish_reason": "cancelled"})
        except (RuntimeError, WebSocketDisconnect):
            return  # the client is gone
        except Exception as error:
            with contextlib.suppress(RuntimeError, WebSocketDisconnect):  # the client is gone
                await self._send_error(error, frame.id)

    async def _inspect(self, kind: str) -> None:
        try:
            detail = await self._manager.get(self._owner, self._session_id)
        except SessionNotFoundError:
            detail = None
        view = None if detail is None else view_fields(detail.view)
        await self._send({"type": kind, "streamingllm": view})

    async def _send_error(self, error: Exception, question_id: str | None = None) -> None:
        found = api_error_of(error)
        body = {"message": str(found), "type": found.type, "code": found.code, "param": found.param}
        await self._send({"type": "error", "id": question_id, "error": body})

    async def _send(self, frame: dict[str, Any]) -> None:
        async with self._lock:
            await self._send_text(json.dumps(frame))


def _parsed(text: str) -> Any:
    try:
        return FRAME.validate_python(json.loads(text))
    except ValidationError as error:
        raise api_error_of(error) from error
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"The frame is no JSON ({error}); send one JSON object") from error
