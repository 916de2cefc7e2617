"""Serve `/v1/responses` over HTTP."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import AsyncGenerator
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import JSONResponse, Response

from streamingllm.server.description import EVENT_STREAM, TURN_HEADERS, turn_headers
from streamingllm.server.encoders.common import to_json
from streamingllm.server.errors import ApiError
from streamingllm.server.forgetting import view_headers
from streamingllm.server.responses.builder import Event, ResponseBuilder
from streamingllm.server.responses.compaction import Place
from streamingllm.server.responses.paging import Order, page_of
from streamingllm.server.responses.requests import Asked, response_facts, turn_request
from streamingllm.server.responses.runs import ResponseRuns, input_items_of
from streamingllm.server.schemas.common import AnswerModel, ErrorBody
from streamingllm.server.schemas.responses import (
    CompactRequest,
    ResponseOptions,
    ResponseRequest,
)
from streamingllm.server.served_model import check_model
from streamingllm.server.sse import SseResponse, sse_event
from streamingllm.server.token_texts import TokenTexts
from streamingllm.server.turns import VISIBILITY_EVENT, shows_visibility, while_connected
from streamingllm.sessions.turn_attempt import new_id

router = APIRouter(tags=["responses"])
_DONE = sse_event("[DONE]")


class ResponseResource(AnswerModel):
    """Describe a response as the Open Responses specification does."""

    id: str
    object: Literal["response"]
    status: str
    output: list[dict[str, Any]]


class ItemList(AnswerModel):
    """Hold a page of items."""

    object: Literal["list"]
    data: list[dict[str, Any]]
    first_id: str | None
    last_id: str | None
    has_more: bool


class Deleted(AnswerModel):
    """Say that a response is gone."""

    id: str
    object: Literal["response"]
    deleted: Literal[True]


class InputTokens(AnswerModel):
    """Count the tokens that a response would build on."""

    object: Literal["response.input_tokens"]
    input_tokens: int


class Compaction(AnswerModel):
    """Hold an item from which a later input goes on."""

    id: str
    object: Literal["response.compaction"]
    output: list[dict[str, Any]]
    created_at: int
    usage: dict[str, Any]


_REFUSED: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorBody, "description": "The request is wrong; `param` names the field."},
    404: {"model": ErrorBody, "description": "It is not there, or not yours."},
}
_ANSWER: dict[str, Any] = {
    "model": ResponseResource,
    "description": "The response, or a stream of its events that ends with `data: [DONE]`.",
    "content": EVENT_STREAM,
}


@router.post(
    "/v1/responses",
    responses={200: {**_ANSWER, "headers": TURN_HEADERS}, **_REFUSED},
    dependencies=[Depends(turn_headers)],
)
async def create_response(request: Request, body: ResponseRequest) -> Response:
    """Answer an input; the response can be gone on from, and fetched, as long as it is stored."""
    runs = _runs(request)
    model = check_model(request, body.model)
    _check(body)
    defaults = request.app.state.settings.sampling_defaults()
    turn = await turn_request(_asked(request), body, defaults)
    texts = TokenTexts(runs.manager.lm.tokenizer) if turn.params.logprobs is not None else None
    builder = ResponseBuilder(response_facts(body, turn.params, model), texts)
    items = input_items_of(turn)
    if body.background:
        run = await runs.start(builder, turn, items)
        if body.stream:
            return _stream(request, runs.listen(turn.owner, builder.id, -1))
        return JSONResponse(run.builder.as_json())
    events = runs.run(builder, turn, items)
    if body.stream:
        return _stream(request, events)
    async with contextlib.aclosing(events):
        await while_connected(request, _drain(events))
    if builder.status == "failed":
        return JSONResponse(builder.as_json(), 500)
    assert builder.view is not None
    return JSONResponse(builder.as_json(), headers=view_headers(builder.view))


@router.get("/v1/responses/{response_id}", responses={200: _ANSWER, **_REFUSED})
async def get_response(
    request: Request,
    response_id: str,
    stream: bool = False,
    starting_after: Annotated[int, Query(ge=-1, lt=2**31)] = -1,
) -> Response:
    """Return a response, or go on listening to one that runs in the background."""
    runs, owner = _runs(request), request.state.owner
    if stream:
        return _stream(request, runs.listen(owner, response_id, starting_after))
    record = await runs.get(owner, response_id)
    return JSONResponse(json.loads(record.body))


@router.delete("/v1/responses/{response_id}", responses={200: {"model": Deleted}, **_REFUSED})
async def delete_response(request: Request, response_id: str) -> Response:
    """Delete a response; its session stays."""
    await _runs(request).delete(request.state.owner, response_id)
    return JSONResponse({"id": response_id, "object": "response", "deleted": True})


@router.post(
    "/v1/responses/{response_id}/cancel",
    responses={200: {"model": ResponseResource}, **_REFUSED},
)
async def cancel_response(request: Request, response_id: str) -> Response:
    """Stop a response that runs in the background; what is there is kept."""
    record = await _runs(request).cancel(request.state.owner, response_id)
    return JSONResponse(json.loads(record.body))


@router.get(
    "/v1/responses/{response_id}/input_items", responses={200: {"model": ItemList}, **_REFUSED}
)
async def list_input_items(
    request: Request,
    response_id: str,
    order: Order = "desc",
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: str | None = None,
) -> Response:
    """Return what a response answers."""
    record = await _runs(request).get(request.state.owner, response_id)
    return JSONResponse(page_of(json.loads(record.input_items), order, limit, after))


@router.post("/v1/responses/input_tokens", responses={200: {"model": InputTokens}, **_REFUSED})
async def count_input_tokens(request: Request, body: ResponseOptions) -> Response:
    """Count the tokens that a response would build on."""
    check_model(request, body.model)
    defaults = request.app.state.settings.sampling_defaults()
    turn = await turn_request(_asked(request), body, defaults)
    count = await while_connected(request, _runs(request).manager.count_tokens(turn))
    return JSONResponse({"object": "response.input_tokens", "input_tokens": count})


@router.post("/v1/responses/compact", responses={200: {"model": Compaction}, **_REFUSED})
async def compact(request: Request, body: CompactRequest) -> Response:
    """Return an item that stands for a history; the session that has it goes on from there."""
    check_model(request, body.model)
    manager, owner = _runs(request).manager, request.state.owner
    named = {"input", "previous_response_id", "instructions"}
    options = ResponseOptions.model_validate(body.model_dump(include=named, exclude_none=True))
    defaults = request.app.state.settings.sampling_defaults()
    turn = await turn_request(_asked(request), options, defaults)
    count = await manager.count_tokens(turn)
    if turn.identity.kind == "point":
        view = await manager.fork(owner, turn.identity.id, message_id=turn.identity.after)
    else:
        view = await manager.create(owner, system_prompt=turn.system_prompt)
    messages = await manager.append(owner, view.session_id, turn.messages)
    last = messages[-1].id if messages else turn.identity.after
    item = {
        "type": "compaction",
        "id": new_id("cmp_"),
        "encrypted_content": Place(view.session_id, last).encoded(),
    }
    usage = {
        "input_tokens": count,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 0,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": count,
    }
    answer = {"id": new_id("resp_"), "object": "response.compaction", "output": [item]}
    return JSONResponse({**answer, "created_at": int(time.time()), "usage": usage})


def _check(body: ResponseRequest) -> None:
    if body.background and body.store is False:
        raise ApiError(400, "background can only be used when `store` is true", param="background")
    has_input = bool(body.input) or body.previous_response_id or body.conversation
    if not has_input:
        raise ApiError(400, "input is empty; send at least one message", param="input")


def _asked(request: Request) -> Asked:
    runs, owner = _runs(request), request.state.owner
    return Asked(runs.manager, owner, request.headers, partial(runs.place_after, owner))


def _runs(request: Request) -> ResponseRuns:
    runs: ResponseRuns = request.app.state.responses
    return runs


async def _drain(events: AsyncGenerator[Event, None]) -> None:
    async for _ in events:
        pass


def _stream(request: Request, events: AsyncGenerator[Event, None]) -> Response:
    """Send events as they come; those before the first that can be refused are none."""
    sees = shows_visibility(request)

    async def encoded() -> AsyncGenerator[bytes, None]:
        async with contextlib.aclosing(events):
            async for event in events:
                view = event.get("response", {}).get("streamingllm")
                if sees and view is not None:
                    own = {"type": VISIBILITY_EVENT, "streamingllm": view}
                    yield sse_event(to_json(own), VISIBILITY_EVENT)
                yield sse_event(to_json(event), event["type"])
            yield _DONE

    ping_seconds = request.app.state.settings.ping_seconds
    return SseResponse(encoded(), headers={}, ping_seconds=ping_seconds)
