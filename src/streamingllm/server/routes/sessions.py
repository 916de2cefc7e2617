"""`/v1/sessions`: list, search, inspect, rewind, fork, export, import, stop, delete."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from streamingllm.server.schemas.common import ErrorBody
from streamingllm.server.schemas.sessions import (
    AppendMessages,
    CreateSession,
    ForkSession,
    ListParameters,
    MessageList,
    MessageObject,
    RewindSession,
    SessionDeleted,
    SessionDetailObject,
    SessionList,
    SessionObject,
    SessionStopped,
    UpdateSession,
)
from streamingllm.sessions.manager import SessionManager

_ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorBody, "description": "The request is wrong; `param` names the field."},
}
_MISSING: dict[int | str, dict[str, Any]] = {
    404: {"model": ErrorBody, "description": "You have no session of that id."},
}
_TAKEN: dict[int | str, dict[str, Any]] = {
    409: {"model": ErrorBody, "description": "You have a session of that id."},
}
router = APIRouter(prefix="/v1/sessions", tags=["sessions"], responses=_ERRORS)
_DOCUMENT = {"application/json": {"schema": {"type": "object"}}}


@router.get("")
async def list_sessions(
    request: Request, parameters: Annotated[ListParameters, Query()]
) -> SessionList:
    """List sessions, those that changed last first; `query` searches their messages."""
    page = await _manager(request).list(
        _owner(request),
        limit=parameters.limit,
        after=parameters.after,
        query=parameters.query or None,
    )
    return SessionList.of(page)


@router.post("", responses=_TAKEN)
async def create_session(request: Request, body: CreateSession) -> SessionDetailObject:
    """Create a session; its messages are fed with the first turn."""
    view = await _manager(request).create(
        _owner(request),
        session_id=body.id,
        system_prompt=body.system_prompt,
        tools=body.tools,
        eviction=body.eviction,
        messages=[message.to_message() for message in body.messages],
        metadata=body.metadata,
    )
    return await _detail(request, view.session_id)


@router.post("/import", openapi_extra={"requestBody": {"required": True, "content": _DOCUMENT}})
async def import_session(request: Request) -> SessionDetailObject:
    """Create a session from an exported document, under a new id."""
    view = await _manager(request).import_(_owner(request), await request.body())
    return await _detail(request, view.session_id)


@router.get("/{session_id}", responses=_MISSING)
async def get_session(request: Request, session_id: str) -> SessionDetailObject:
    """Return a session; each message says whether the model still sees it."""
    return await _detail(request, session_id)


@router.patch("/{session_id}", responses=_MISSING)
async def update_session(request: Request, session_id: str, body: UpdateSession) -> SessionObject:
    """Replace the metadata of a session, such as its title."""
    return SessionObject.of(
        await _manager(request).update(_owner(request), session_id, body.metadata)
    )


@router.delete("/{session_id}", responses=_MISSING)
async def delete_session(request: Request, session_id: str) -> SessionDeleted:
    """Delete a session from the disk and every cache, with its responses."""
    await _manager(request).delete(_owner(request), session_id)
    return SessionDeleted(id=session_id)


@router.post("/{session_id}/messages", responses=_MISSING)
async def append_messages(request: Request, session_id: str, body: AppendMessages) -> MessageList:
    """Append messages without an answer; they are fed with the next turn."""
    manager, owner = _manager(request), _owner(request)
    messages = [message.to_message() for message in body.messages]
    appended = await manager.append(owner, session_id, messages)
    view = (await manager.get(owner, session_id)).view
    return MessageList(data=[MessageObject.of(message, view) for message in appended])


@router.delete("/{session_id}/messages/{message_id}", responses=_MISSING)
async def delete_message(request: Request, session_id: str, message_id: str) -> SessionDetailObject:
    """Cut one message out; the tokens after it are fed again."""
    await _manager(request).delete_message(_owner(request), session_id, message_id)
    return await _detail(request, session_id)


@router.post("/{session_id}/rewind", responses=_MISSING)
async def rewind_session(
    request: Request, session_id: str, body: RewindSession
) -> SessionDetailObject:
    """Take back what follows a message, or the last turns, as if they had never been."""
    await _manager(request).rewind(
        _owner(request), session_id, message_id=body.message_id, num_turns=body.num_turns
    )
    return await _detail(request, session_id)


@router.post("/{session_id}/fork", responses=_MISSING)
async def fork_session(request: Request, session_id: str, body: ForkSession) -> SessionDetailObject:
    """Make a branch that shares the messages up to one; the session stays as it is."""
    view = await _manager(request).fork(_owner(request), session_id, message_id=body.message_id)
    return await _detail(request, view.session_id)


@router.post("/{session_id}/stop", responses=_MISSING)
async def stop_session(request: Request, session_id: str) -> SessionStopped:
    """End the running answer and keep what is there."""
    manager, owner = _manager(request), _owner(request)
    await manager.get(owner, session_id)
    return SessionStopped(id=session_id, stopped=await manager.stop(owner, session_id))


@router.get(
    "/{session_id}/export",
    response_class=Response,
    responses=_MISSING
    | {200: {"description": "A document that `import` takes.", "content": _DOCUMENT}},
)
async def export_session(request: Request, session_id: str) -> Response:
    """Return a session as one document, to keep it or to take it to another server."""
    document = await _manager(request).export(_owner(request), session_id)
    headers = {"Content-Disposition": 'attachment; filename="session.json"'}
    return Response(document, media_type="application/json", headers=headers)


async def _detail(request: Request, session_id: str) -> SessionDetailObject:
    manager = _manager(request)
    detail = await manager.get(_owner(request), session_id)
    return SessionDetailObject.of_detail(detail, manager.cache_size)


def _manager(request: Request) -> SessionManager:
    manager: SessionManager = request.app.state.manager
    return manager


def _owner(request: Request) -> str:
    owner: str = request.state.owner
    return owner
