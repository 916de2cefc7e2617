"""`/v1/sessions/{id}`: pin, correct and unpin facts; forget messages."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from streamingllm.server.schemas.common import ErrorBody
from streamingllm.server.schemas.facts import CorrectFact, FactDeleted, FactObject, PinFact
from streamingllm.server.schemas.sessions import ForgetMessages, SessionDetailObject
from streamingllm.sessions.manager import SessionManager

_REFUSED: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorBody, "description": "The request is wrong, or the fact does not fit."},
    404: {"model": ErrorBody, "description": "It is not there, or not yours."},
}
router = APIRouter(prefix="/v1/sessions", tags=["sessions"], responses=_REFUSED)


@router.post("/{session_id}/forget")
async def forget_messages(
    request: Request, session_id: str, body: ForgetMessages
) -> SessionDetailObject:
    """Erase messages and whatever encodes them; the next turn reads what is left again."""
    manager, owner = _manager(request), request.state.owner
    await manager.forget(owner, session_id, body.message_ids)
    detail = await manager.get(owner, session_id)
    return SessionDetailObject.of_detail(detail, manager.cache_size)


@router.post("/{session_id}/facts")
async def pin_fact(request: Request, session_id: str, body: PinFact) -> FactObject:
    """Pin a fact: it joins the pinned prefix, and the next turn reads all of it again."""
    fact = await _manager(request).pin_fact(
        request.state.owner, session_id, body.text, body.message_id
    )
    return FactObject.of(fact)


@router.patch("/{session_id}/facts/{fact_id}")
async def correct_fact(
    request: Request, session_id: str, fact_id: str, body: CorrectFact
) -> FactObject:
    """Replace the text of a pinned fact."""
    fact = await _manager(request).correct_fact(request.state.owner, session_id, fact_id, body.text)
    return FactObject.of(fact)


@router.delete("/{session_id}/facts/{fact_id}")
async def unpin_fact(request: Request, session_id: str, fact_id: str) -> FactDeleted:
    """Take a fact out of the pinned prefix."""
    await _manager(request).unpin_fact(request.state.owner, session_id, fact_id)
    return FactDeleted(id=fact_id)


def _manager(request: Request) -> SessionManager:
    manager: SessionManager = request.app.state.manager
    return manager
