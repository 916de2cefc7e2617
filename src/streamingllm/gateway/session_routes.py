"""`/v1/sessions` of the gateway: sessions of its log, in the shapes of the server's routes."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request

from streamingllm.gateway.chat import ChatGateway, owner_of
from streamingllm.gateway.sessions import GatewaySessions
from streamingllm.server.errors import ApiError
from streamingllm.server.schemas.capabilities import Capabilities
from streamingllm.server.schemas.sessions import (
    AppendMessages,
    CreateSession,
    ForgetMessages,
    ListParameters,
    MessageList,
    MessageObject,
    SessionDeleted,
    SessionDetailObject,
    SessionList,
    SessionObject,
    UpdateSession,
)

_SESSION = "/v1/sessions/{session_id}"


def session_routes(sessions: GatewaySessions, chat: ChatGateway, context_limit: int) -> APIRouter:
    """Return the routes of sessions, and one that says what can be done with them.

    Args:
        sessions: of the log.
        chat: knows the turns that run.
        context_limit: tokens that can be visible at once; 0 if that is not known.
    """
    router = APIRouter()

    def detail(request: Request, session_id: str) -> SessionDetailObject:
        owner = owner_of(request)
        is_running = chat.is_running(owner, session_id)
        found = sessions.get(owner, session_id, is_running=is_running)
        return SessionDetailObject.of_detail(found, context_limit)

    @router.get("/v1/capabilities")
    def capabilities() -> Capabilities:
        return Capabilities(answers="chat.completions", can=["forget"])

    @router.get("/v1/sessions")
    def list_sessions(
        request: Request, parameters: Annotated[ListParameters, Query()]
    ) -> SessionList:
        page = sessions.list(
            owner_of(request),
            limit=parameters.limit,
            after=parameters.after,
            query=parameters.query or None,
        )
        return SessionList.of(page)

    @router.post("/v1/sessions")
    def create(request: Request, body: CreateSession) -> SessionDetailObject:
        if body.tools or body.eviction == "token":
            name = "tools" if body.tools else "eviction"
            raise ApiError(400, f"{name} is the upstream's; send it with each request", param=name)
        session_id = sessions.create(
            owner_of(request),
            body.id,
            system_prompt=body.system_prompt or "",
            messages=[message.to_message() for message in body.messages],
            metadata=body.metadata,
        )
        return detail(request, session_id)

    @router.get(_SESSION)
    def inspect(request: Request, session_id: str) -> SessionDetailObject:
        return detail(request, session_id)

    @router.patch(_SESSION)
    def update(request: Request, session_id: str, body: UpdateSession) -> SessionObject:
        return SessionObject.of(sessions.update(owner_of(request), session_id, body.metadata))

    @router.delete(_SESSION)
    def delete(request: Request, session_id: str) -> SessionDeleted:
        sessions.delete(owner_of(request), session_id)
        return SessionDeleted(id=session_id)

    @router.post(f"{_SESSION}/messages")
    def append(request: Request, session_id: str, body: AppendMessages) -> MessageList:
        messages = [message.to_message() for message in body.messages]
        found, appended = sessions.append(owner_of(request), session_id, messages)
        return MessageList(data=[MessageObject.of(message, found.view) for message in appended])

    @router.delete(f"{_SESSION}/messages/{{message_id}}")
    def forget_message(request: Request, session_id: str, message_id: str) -> SessionDetailObject:
        sessions.forget(owner_of(request), session_id, [message_id])
        return detail(request, session_id)

    @router.post(f"{_SESSION}/forget")
    def forget(request: Request, session_id: str, body: ForgetMessages) -> SessionDetailObject:
        sessions.forget(owner_of(request), session_id, body.message_ids)
        return detail(request, session_id)

    @router.api_route(
        f"{_SESSION}/{{path:path}}", methods=["GET", "POST", "PATCH", "DELETE", "PUT"]
    )
    def refuse(session_id: str, path: str) -> None:
        raise ApiError(
            404,
            f"path={path[:128]!r} of a session is not offered by a gateway; see /v1/capabilities",
            code="unsupported",
        )

    return router
