"""Handle one client of `/v1/responses` over WebSocket."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from pydantic import TypeAdapter

from streamingllm.server.encoders.common import to_json
from streamingllm.server.errors import ApiError, api_error_of
from streamingllm.server.responses.builder import Event, ResponseBuilder
from streamingllm.server.responses.compaction import Place
from streamingllm.server.responses.requests import Asked, response_facts, turn_request
from streamingllm.server.responses.runs import ResponseRuns, input_items_of
from streamingllm.server.schemas.responses import SocketRequest
from streamingllm.server.token_texts import TokenTexts
from streamingllm.sessions.turn import TurnRequest
from streamingllm.stream.sampling import SamplingParams

MAX_SECONDS = 3600.0
_REQUEST: TypeAdapter[SocketRequest] = TypeAdapter(SocketRequest)
Send = Callable[[str], Awaitable[None]]


class ResponseSocket:
    """Run the responses of one socket, one at a time.

    Responses that are not stored can be gone on from on their own socket only.

    Args:
        runs: of all clients.
        owner: of the client's key.
        headers: of the socket's request.
        send: writes a text frame.
        check_model: returns the id of the served model for a name, or raises.
        defaults: sampling parameters of the operator.
        max_seconds: after which the socket refuses requests; what runs then goes on to its end.
        clock: tells seconds.
    """

    def __init__(
        self,
        runs: ResponseRuns,
        owner: str,
        headers: Mapping[str, str],
        send: Send,
        *,
        check_model: Callable[[str | None], str],
        defaults: SamplingParams,
        max_seconds: float = MAX_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._runs = runs
        self._owner = owner
        self._headers = headers
        self._send_text = send
        self._check_model = check_model
        self._defaults = defaults
        self._clock = clock
        self._ends_at = clock() + max_seconds
        self._places: dict[str, Place] = {}
        self._running: asyncio.Task[None] | None = None
        self._has_ended = False

    async def receive(self, text: str) -> None:
        """Handle one frame; what is wrong with it is answered as an error."""
        try:
            if self._clock() >= self._ends_at:
                raise ApiError(
                    400,
                    "The socket is open for more than 60 minutes; open another one",
                    code="websocket_connection_limit_reached",
                )
            body = _parsed(text)
            if self._running is not None and self._has_ended:
                await asyncio.wait((self._running,))  # the client has the last event already
            if self._running is not None and not self._running.done():
                raise ApiError(
                    400,
                    "A response is in progress on this socket; wait for its end",
                    code="response_in_progress",
                )
            self._has_ended = False
            self._running = asyncio.create_task(self._respond(body))
        except Exception as error:
            await self._send_error(error)

    async def close(self) -> None:
        """End the running response, because the client is gone."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    async def _respond(self, body: SocketRequest) -> None:
        try:
            model = self._check_model(body.model)
            turn = await self._turn(body)
            wants = turn.params.logprobs is not None
            texts = TokenTexts(self._runs.manager.lm.tokenizer) if wants else None
            builder = ResponseBuilder(response_facts(body, turn.params, model), texts)
            events = self._runs.run(builder, turn, input_items_of(turn))
            async with contextlib.aclosing(events):
                async for event in events:
                    if builder.is_ended:
                        self._note(builder)
                    await self._send(event)
        except Exception as error:
            self._has_ended = True
            await self._send_error(error)

    async def _turn(self, body: SocketRequest) -> TurnRequest:
        asked = Asked(self._runs.manager, self._owner, self._headers, self._place_after)
        try:
            return await turn_request(asked, body, self._defaults)
        except ApiError as error:
            if error.param == "input" and body.previous_response_id is not None:
                # A chain whose input cannot be true is not to be gone on from.
                self._places.pop(body.previous_response_id, None)
            raise

    def _note(self, builder: ResponseBuilder) -> None:
        self._has_ended = True
        view, answer_id = builder.view, builder.answer_id
        if view is not None and answer_id is not None and builder.status != "failed":
            self._places[builder.id] = Place(view.session_id, answer_id)

    def _place_after(self, response_id: str) -> Place:
        place = self._places.get(response_id)
        return place or self._runs.place_after(self._owner, response_id)

    async def _send(self, event: Event) -> None:
        await self._send_text(to_json(event))

    async def _send_error(self, error: Exception) -> None:
        found = api_error_of(error)
        body = {
            "type": found.type,
            "code": found.code or found.type,
            "message": str(found),
            "param": found.param,
        }
        await self._send({"type": "error", "status": found.status, "error": body})


def _parsed(text: str) -> SocketRequest:
    try:
        data: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"The frame is no JSON ({error}); send one object") from error
    if not isinstance(data, dict) or data.get("type") != "response.create":
        raise ApiError(400, "type is not 'response.create'; send no other event", param="type")
    # Fields of HTTP's streaming mean nothing here; some clients send them all the same.
    return _REQUEST.validate_python({k: v for k, v in data.items() if k != "stream_options"})
