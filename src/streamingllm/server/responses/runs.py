"""Run responses: for a client that waits, or in the background for whoever listens later."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncGenerator
from typing import Any

from streamingllm.errors import ResponseNotFoundError
from streamingllm.server.encoders.common import to_json
from streamingllm.server.errors import ApiError, api_error_of
from streamingllm.server.responses.background_run import BackgroundRun
from streamingllm.server.responses.builder import Event, ResponseBuilder
from streamingllm.server.responses.compaction import Place
from streamingllm.server.responses.items import items_of
from streamingllm.server.responses.records import (
    RUNNING,
    as_dead,
    is_dead,
    not_found,
    put_record,
    with_body,
)
from streamingllm.sessions.manager import SessionManager
from streamingllm.sessions.response_store import ResponseRecord
from streamingllm.sessions.turn import TurnRequest

_REFUSAL_SECONDS = 2.0
_BATCH_EVENTS = 32
_log = logging.getLogger("streamingllm.server")


class ResponseRuns:
    """Run responses of all clients, and keep those that are stored.

    Args:
        manager: of the sessions.
        ttl_seconds: a stored response is deleted after so long.
    """

    def __init__(self, manager: SessionManager, ttl_seconds: float) -> None:
        self.manager = manager
        self._ttl_seconds = ttl_seconds
        self._background: dict[str, BackgroundRun] = {}

    async def run(
        self, builder: ResponseBuilder, request: TurnRequest, input_items: list[dict[str, Any]]
    ) -> AsyncGenerator[Event, None]:
        """Yield the events of a response; closing the iterator cancels its turn.

        The last event comes once the turn, and the response if it is stored, are durable.

        Raises:
            StreamingLLMError: the turn is refused; nothing was yielded.
        """
        async with contextlib.aclosing(self.manager.respond(request)) as events:
            started = await anext(events)
            opening = [] if builder.status == "queued" else builder.opening()
            for answer in (*opening, *builder.events(started)):
                yield answer
            try:
                async for event in events:
                    answers = [*builder.events(event)]
                    if builder.is_ended and answers and "response" in answers[-1]:
                        await self._store(builder, request, input_items)
                    for answer in answers:
                        yield answer
            except Exception as error:
                last = builder.failed(_told(error))
                await self._store(builder, request, input_items)
                yield last

    async def start(
        self, builder: ResponseBuilder, request: TurnRequest, input_items: list[dict[str, Any]]
    ) -> BackgroundRun:
        """Run a response in the background; what is refused soon is raised here.

        Raises:
            StreamingLLMError: the turn is refused.
        """
        builder.status = "queued"
        run = BackgroundRun(builder, request)
        for event in builder.opening():
            run.put(event)
        await self._store(builder, request, input_items, is_new=True)
        self._background[builder.id] = run
        run.task = asyncio.create_task(self._follow(run, input_items))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(run.accepted.wait(), _REFUSAL_SECONDS)
        if run.refusal is not None:
            await asyncio.to_thread(self.manager.responses.delete, request.owner, builder.id)
            raise run.refusal
        return run

    def live(self, owner: str, response_id: str) -> BackgroundRun | None:
        """Return a response that runs in the background, if the owner has it."""
        run = self._background.get(response_id)
        return run if run is not None and run.request.owner == owner else None

    async def get(self, owner: str, response_id: str) -> ResponseRecord:
        """Return a stored response as it is now.

        Raises:
            ApiError: the owner has none of that id (404).
        """
        try:
            record = await asyncio.to_thread(self.manager.responses.get, owner, response_id)
        except ResponseNotFoundError as error:
            raise not_found(response_id) from error
        run = self.live(owner, response_id)
        if run is not None:
            return with_body(record, run.builder.as_json())
        return as_dead(record) if record.status in RUNNING else record

    def place_after(self, owner: str, response_id: str) -> Place:
        """Return the place where a session goes on after a response.

        Raises:
            ResponseNotFoundError: the owner has none of that id, or it has not ended.
        """
        record = self.manager.responses.get(owner, response_id)
        if record.message_id is None:
            raise ResponseNotFoundError(f"response_id={response_id!r} has no answer to go on from")
        return Place(record.session_id, record.message_id)

    async def listen(self, owner: str, response_id: str, after: int) -> AsyncGenerator[Event, None]:
        """Yield the events of a background response after a number, until its end.

        Raises:
            ApiError: there is no such response, or it was not made in the background.
        """
        run = self.live(owner, response_id)
        if run is None:
            record = await self.get(owner, response_id)
            stored = await asyncio.to_thread(self.manager.responses.events, record.id, after)
            if not stored and not json.loads(record.body)["background"]:
                raise ApiError(
                    400,
                    f"Response with id {response_id!r} was not created with background=true; it "
                    "has no events to resume",
                    code="invalid_value",
                    param="stream",
                )
            for _, text in stored:
                yield json.loads(text)
            last = json.loads(record.body)
            if is_dead(last):
                number = stored[-1][0] if stored else after
                end = {"type": "response.failed", "sequence_number": number + 1, "response": last}
                yield end
            return
        at = 0
        while True:
            changed = run.changed
            while at < len(run.events):
                event = run.events[at]
                at += 1
                if event["sequence_number"] > after:
                    yield event
            if run.is_ended and at == len(run.events):
                return
            await changed.wait()

    async def cancel(self, owner: str, response_id: str) -> ResponseRecord:
        """End a background response and keep what is there.

        Raises:
            ApiError: there is no such response, or it was not made in the background.
        """
        record = await self.get(owner, response_id)
        if not json.loads(record.body)["background"]:
            raise ApiError(400, "Cannot cancel a synchronous response.", code="invalid_value")
        run = self.live(owner, response_id)
        if run is None or run.task is None:
            return record
        view = run.builder.view
        if view is None or not await self.manager.stop(owner, view.session_id):
            run.task.cancel()
        await asyncio.wait((run.task,))
        return await self.get(owner, response_id)

    async def delete(self, owner: str, response_id: str) -> None:
        """Delete a response; one that runs is ended first.

        Raises:
            ApiError: the owner has none of that id (404).
        """
        await self.get(owner, response_id)
        run = self.live(owner, response_id)
        await asyncio.to_thread(self.manager.responses.delete, owner, response_id)
        if run is not None and run.task is not None:
            run.task.cancel()
            await asyncio.wait((run.task,))

    async def close(self) -> None:
        """Cancel what runs in the background."""
        tasks = [run.task for run in self._background.values() if run.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self, run: BackgroundRun, input_items: list[dict[str, Any]]) -> None:
        builder = run.builder
        try:
            async with contextlib.aclosing(self.run(builder, run.request, input_items)) as events:
                async for event in events:
                    run.put(event)
                    run.accepted.set()
                    if len(run.events) - run.num_stored >= _BATCH_EVENTS:
                        await self._store_events(run)
        except asyncio.CancelledError:
            if not builder.is_ended:
                run.put(builder.cancelled())
                await self._store(builder, run.request, input_items)
        except Exception as error:
            if not run.accepted.is_set():
                run.refusal = error
            run.put(builder.failed(_told(error)))
            await self._store(builder, run.request, input_items)
        finally:
            await self._store_events(run)
            self._background.pop(builder.id, None)
            run.end()

    async def _store_events(self, run: BackgroundRun) -> None:
        """Store the events that the store does not have."""
        first = run.num_stored
        texts = [to_json(event) for event in run.events[first:]]
        with contextlib.suppress(ResponseNotFoundError):  # it was deleted meanwhile
            await asyncio.to_thread(
                self.manager.responses.append_events, run.builder.id, first, texts
            )
        run.num_stored = first + len(texts)

    async def _store(
        self,
        builder: ResponseBuilder,
        request: TurnRequest,
        input_items: list[dict[str, Any]],
        *,
        is_new: bool = False,
    ) -> None:
        """Store a response as it is; one that was deleted meanwhile stays deleted."""
        if not request.is_stored:
            return
        view = builder.view
        now = time.time()
        record = ResponseRecord(
            builder.id,
            request.owner,
            "" if view is None else view.session_id,
            builder.answer_id if builder.is_ended and builder.status != "failed" else None,
            builder.status,
            to_json(builder.as_json()),
            to_json(input_items),
            float(builder.created_at),
            now + self._ttl_seconds,
        )
        is_new = is_new or builder.id not in self._background
        await asyncio.to_thread(put_record, self.manager, record, is_new=is_new)


def input_items_of(request: TurnRequest) -> list[dict[str, Any]]:
    """Return what a response answers, as items."""
    return [item for message in request.messages for item in items_of(message)]


def _told(error: Exception) -> ApiError:
    found = api_error_of(error)
    if found.status >= 500:
        _log.error("A response failed.", exc_info=error)
    return found
