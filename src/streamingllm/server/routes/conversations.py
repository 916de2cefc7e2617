"""Serve `/v1/conversations` and their items: conversations are sessions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Query, Request
from starlette.responses import JSONResponse, Response

from streamingllm.errors import SessionNotFoundError
from streamingllm.server.errors import ApiError
from streamingllm.server.messages import split_system_prompt
from streamingllm.server.responses.items import items_of, read_input
from streamingllm.server.responses.paging import Order, page_of
from streamingllm.server.schemas.common import AnswerModel, ErrorBody
from streamingllm.server.schemas.conversations import (
    CreateConversation,
    CreateItems,
    UpdateConversation,
)
from streamingllm.sessions.manager import SessionManager
from streamingllm.sessions.session_types import SessionDetail, SessionInfo
from streamingllm.sessions.transcript import Message
from streamingllm.sessions.turn_attempt import new_id

router = APIRouter(tags=["conversations"])


class Conversation(AnswerModel):
    """Describe a conversation."""

    id: str
    object: Literal["conversation"]
    created_at: int
    metadata: dict[str, Any]


class ConversationItems(AnswerModel):
    """Hold a page of items."""

    object: Literal["list"]
    data: list[dict[str, Any]]
    first_id: str | None
    last_id: str | None
    has_more: bool


class ConversationItem(AnswerModel):
    """Hold one item."""

    id: str
    type: str


class ConversationDeleted(AnswerModel):
    """Say that a conversation is gone."""

    id: str
    object: Literal["conversation.deleted"]
    deleted: Literal[True]


_REFUSED: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorBody, "description": "The request is wrong; `param` names the field."},
    404: {"model": ErrorBody, "description": "It is not there, or not yours."},
}
_PATH = "/v1/conversations/{conversation_id}"
_LISTED: dict[int | str, dict[str, Any]] = {200: {"model": ConversationItems}, **_REFUSED}
_SHOWN: dict[int | str, dict[str, Any]] = {200: {"model": Conversation}, **_REFUSED}


@router.post("/v1/conversations", responses=_SHOWN)
async def create_conversation(
    request: Request, body: Annotated[CreateConversation | None, Body()] = None
) -> Response:
    """Begin a conversation, with items or without; a leading system message is pinned."""
    given = body or CreateConversation()
    system_prompt, messages = split_system_prompt(read_input(given.items).messages)
    manager, owner = _manager(request), request.state.owner
    view = await manager.create(
        owner,
        session_id=new_id("conv_"),
        system_prompt=system_prompt,
        messages=messages,
        metadata=dict(given.metadata or {}),
    )
    return JSONResponse(_as_json((await manager.get(owner, view.session_id)).info))


@router.get(_PATH, responses=_SHOWN)
async def get_conversation(request: Request, conversation_id: str) -> Response:
    """Return a conversation without its items."""
    return JSONResponse(_as_json((await _detail(request, conversation_id)).info))


@router.post(_PATH, responses=_SHOWN)
async def update_conversation(
    request: Request, conversation_id: str, body: UpdateConversation
) -> Response:
    """Replace the metadata of a conversation."""
    await _detail(request, conversation_id)
    info = await _manager(request).update(request.state.owner, conversation_id, body.metadata)
    return JSONResponse(_as_json(info))


@router.delete(_PATH, responses={200: {"model": ConversationDeleted}, **_REFUSED})
async def delete_conversation(request: Request, conversation_id: str) -> Response:
    """Delete a conversation with its items and its responses."""
    await _detail(request, conversation_id)
    await _manager(request).delete(request.state.owner, conversation_id)
    gone = {"id": conversation_id, "object": "conversation.deleted", "deleted": True}
    return JSONResponse(gone)


@router.get(f"{_PATH}/items", responses=_LISTED)
async def list_items(
    request: Request,
    conversation_id: str,
    order: Order = "desc",
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: str | None = None,
) -> Response:
    """Return the items of a conversation, page by page."""
    items = _items(await _messages(request, conversation_id))
    return JSONResponse(page_of(items, order, limit, after))


@router.post(f"{_PATH}/items", responses=_LISTED)
async def create_items(request: Request, conversation_id: str, body: CreateItems) -> Response:
    """Append items; the model reads them with the next response."""
    await _messages(request, conversation_id)
    messages = read_input(body.items).messages
    added = await _manager(request).append(request.state.owner, conversation_id, messages)
    items = _items(added)
    return JSONResponse(page_of(items, "asc", max(1, len(items)), None))


@router.get(f"{_PATH}/items/{{item_id}}", responses={200: {"model": ConversationItem}, **_REFUSED})
async def get_item(request: Request, conversation_id: str, item_id: str) -> Response:
    """Return one item."""
    _, item = _found(await _messages(request, conversation_id), item_id)
    return JSONResponse(item)


@router.delete(f"{_PATH}/items/{{item_id}}", responses=_SHOWN)
async def delete_item(request: Request, conversation_id: str, item_id: str) -> Response:
    """Cut an item out; the model reads what follows it again."""
    detail = await _detail(request, conversation_id)
    message, _ = _found(detail.messages, item_id)
    await _manager(request).delete_message(request.state.owner, conversation_id, message.id)
    return JSONResponse(_as_json(detail.info))


async def _detail(request: Request, conversation_id: str) -> SessionDetail:
    with _not_found_as_conversation(conversation_id):
        return await _manager(request).get(request.state.owner, conversation_id)


async def _messages(request: Request, conversation_id: str) -> tuple[Message, ...]:
    with _not_found_as_conversation(conversation_id):
        return await _manager(request).messages(request.state.owner, conversation_id)


@contextmanager
def _not_found_as_conversation(conversation_id: str) -> Iterator[None]:
    try:
        yield
    except SessionNotFoundError as error:
        raise ApiError(
            404,
            f"Conversation with id {conversation_id[:128]!r} not found.",
            code="conversation_not_found",
            param="conversation_id",
        ) from error


def _found(messages: Sequence[Message], item_id: str) -> tuple[Message, dict[str, Any]]:
    for message in messages:
        for item in items_of(message):
            if item["id"] == item_id:
                return message, item
    raise ApiError(
        404, f"Item with id {item_id[:128]!r} not found.", code="item_not_found", param="item_id"
    )


def _items(messages: tuple[Message, ...]) -> list[dict[str, Any]]:
    return [item for message in messages for item in items_of(message)]


def _as_json(info: SessionInfo) -> dict[str, Any]:
    return {
        "id": info.id,
        "object": "conversation",
        "created_at": int(info.created_seconds),
        "metadata": dict(info.metadata),
    }


def _manager(request: Request) -> SessionManager:
    manager: SessionManager = request.app.state.manager
    return manager
