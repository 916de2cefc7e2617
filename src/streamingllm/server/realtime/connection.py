"""Handle one client of the realtime API: its settings, its session, its running response."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from uuid import uuid4

from pydantic import ValidationError
from starlette.websockets import WebSocketDisconnect

from streamingllm.errors import SessionNotFoundError
from streamingllm.server.errors import ApiError, api_error_of
from streamingllm.server.realtime.items import items_of, message_of
from streamingllm.server.realtime.response_events import RealtimeResponse
from streamingllm.server.realtime.turn_requests import RealtimeSettings, turn_request
from streamingllm.server.schemas.realtime import (
    EVENT,
    ItemCreate,
    ItemDelete,
    ItemRetrieve,
    ResponseCancel,
    ResponseCreate,
    SessionUpdate,
)
from streamingllm.sessions.manager import SessionManager
from streamingllm.sessions.session_table import new_session_id
from streamingllm.sessions.transcript import Message
from streamingllm.sessions.turn import Identity, TurnRequest
from streamingllm.stream.sampling import SamplingParams

Send = Callable[[str], Awaitable[None]]


class RealtimeConnection:
    """Handle the events of one socket; the session outlives it.

    Args:
        manager: of the sessions.
        owner: of the client's key.
        send: writes a text frame.
        session_id: to go on with; None for a new one.
        model: name of the served model.
        defaults: sampling parameters of the operator.
    """

    def __init__(
        self,
        manager: SessionManager,
        owner: str,
        send: Send,
        *,
        session_id: str | None,
        model: str,
        defaults: SamplingParams,
    ) -> None:
        self._manager = manager
        self._owner = owner
        self._send_text = send
        self._session_id = session_id or new_session_id()
        self._settings = RealtimeSettings(model, defaults)
        self._response: RealtimeResponse | None = None
        self._running: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()

    async def start(self) -> None:
        """Send the first event."""
        await self._send({"type": "session.created", "session": self._session_json()})

    async def receive(self, text: str) -> None:
        """Handle one frame of the client; what is wrong with it is answered as an error."""
        event_id = None
        try:
            data = _parsed(text)
            event_id = data.get("event_id")
            await self._handle(_validated(data))
        except Exception as error:
            await self.send_error(error, event_id)

    async def send_error(self, error: Exception, event_id: str | None = None) -> None:
        """Send what is wrong."""
        await self._send(_error_event(error, event_id))

    async def close(self) -> None:
        """End the running response, because the client is gone."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    async def _handle(self, event: Any) -> None:
        if isinstance(event, SessionUpdate):
            self._settings.update(event.session)
            await self._send({"type": "session.updated", "session": self._session_json()})
        elif isinstance(event, ItemCreate):
            await self._create_item(event)
        elif isinstance(event, ItemRetrieve):
            item = await self._item(event.item_id)
            await self._send({"type": "conversation.item.retrieved", "item": item})
        elif isinstance(event, ItemDelete):
            await self._item(event.item_id)
            await self._manager.delete_message(self._owner, self._session_id, event.item_id)
            await self._send({"type": "conversation.item.deleted", "item_id": event.item_id})
        elif isinstance(event, ResponseCreate):
            await self._create_response(event)
        elif isinstance(event, ResponseCancel):
            await self._cancel(event)

    async def _create_item(self, event: ItemCreate) -> None:
        await self._ensure_session()
        detail = await self._manager.get(self._owner, self._session_id)
        last = detail.messages[-1].id if detail.messages else None
        if event.previous_item_id not in (None, "root", last):
            raise ApiError(
                400,
                f"previous_item_id={event.previous_item_id!r} is not the last item; a stream only "
                "grows at its end, so leave it out",
                param="previous_item_id",
            )
        (message,) = await self._manager.append(
            self._owner, self._session_id, [message_of(event.item)]
        )
        for item in items_of(message):
            for kind in ("conversation.item.added", "conversation.item.done"):
                await self._send({"type": kind, "item": item, "previous_item_id": last})

    async def _create_response(self, event: ResponseCreate) -> None:
        if self._response is not None and self._response.is_running:
            raise ApiError(
                400,
                "The conversation has a response in progress; wait for response.done or cancel it",
                code="conversation_already_has_active_response",
            )
        if self._running is not None:  # its last event is sent, its turn is being closed
            await asyncio.wait({self._running})
        settings = event.response
        is_apart = settings.conversation == "none"
        if not is_apart:
            await self._ensure_session()
        identity = Identity("new") if is_apart else Identity("session", self._session_id)
        request = turn_request(self._owner, self._settings, settings, identity, is_apart=is_apart)
        most = request.params.max_new_tokens
        limit = "inf" if most is None else most
        self._response = RealtimeResponse(settings.metadata, limit, is_apart=is_apart)
        self._running = asyncio.create_task(self._respond(self._response, request))

    async def _respond(self, response: RealtimeResponse, request: TurnRequest) -> None:
        try:
            await self._send(response.created())
            async with contextlib.aclosing(self._manager.respond(request)) as events:
                async for event in events:
                    for answer in response.events(event):
                        await self._send(answer)
        except asyncio.CancelledError:
            with contextlib.suppress(RuntimeError, WebSocketDisconnect):  # the client is gone
                await self._send(response.cancelled())
        except (RuntimeError, WebSocketDisconnect):
            raise  # the client is gone
        except Exception as error:
            failure = _error_event(error, None)
            await self._send(failure)
            await self._send(response.failed(failure["error"]))

    async def _cancel(self, event: ResponseCancel) -> None:
        response = self._response
        if self._running is None or response is None or not response.is_running:
            raise ApiError(
                400,
                "No response is in progress; send response.create first",
                code="response_cancel_not_active",
            )
        if event.response_id not in (None, response.id):
            raise ApiError(
                400,
                f"response_id={event.response_id!r} is not in progress; cancel {response.id!r}",
                code="response_cancel_not_active",
                param="response_id",
            )
        # A response that has not begun, or leaves the session as it is, is no turn of the session.
        if response.is_apart or not await self._manager.stop(self._owner, self._session_id):
            self._running.cancel()

    async def _ensure_session(self) -> None:
        try:
            await self._manager.get(self._owner, self._session_id)
        except SessionNotFoundError:
            await self._manager.create(
                self._owner,
                session_id=self._session_id,
                system_prompt=self._settings.instructions,
                tools=self._settings.tools,
            )

    async def _item(self, item_id: str) -> dict[str, Any]:
        messages: Sequence[Message] = ()
        with contextlib.suppress(SessionNotFoundError):  # it has no items yet
            messages = (await self._manager.get(self._owner, self._session_id)).messages
        for message in messages:
            for item in items_of(message):
                if item["id"] == item_id:
                    return item
        raise ApiError(
            404,
            f"item_id={item_id!r} is not in the conversation; name an item that was added",
            code="item_not_found",
            param="item_id",
        )

    def _session_json(self) -> dict[str, Any]:
        return {
            "type": "realtime",
            "object": "realtime.session",
            "id": self._session_id,
            **self._settings.as_json(),
        }

    async def _send(self, event: dict[str, Any]) -> None:
        numbered = {"event_id": f"event_{uuid4().hex[:24]}", **event}
        async with self._lock:
            await self._send_text(json.dumps(numbered))


def _parsed(text: str) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"The frame is no JSON ({error}); send one JSON object") from error
    if not isinstance(data, dict):
        raise ApiError(400, "The frame is no JSON object; send one with a `type`")
    return data


def _validated(data: dict[str, Any]) -> Any:
    try:
        return EVENT.validate_python(data)
    except ValidationError as error:
        raise api_error_of(error) from error


def _error_event(error: Exception, event_id: str | None) -> dict[str, Any]:
    found = api_error_of(error)
    return {
        "type": "error",
        "error": {
            "type": found.type,
            "code": found.code,
            "message": str(found),
            "param": found.param,
            "event_id": event_id if isinstance(event_id, str) else None,
        },
    }
