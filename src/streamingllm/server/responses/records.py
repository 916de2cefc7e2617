"""Keep responses in the store, and read them as they are now."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from streamingllm.errors import ResponseNotFoundError, SessionNotFoundError
from streamingllm.server.encoders.common import to_json
from streamingllm.server.errors import ApiError
from streamingllm.sessions.manager import SessionManager
from streamingllm.sessions.response_store import ResponseRecord
from streamingllm.sessions.session import session_key

RUNNING = ("queued", "in_progress")
_DIED = "server_error"


def put_record(manager: SessionManager, record: ResponseRecord, *, is_new: bool) -> None:
    """Put a record, unless the response or its session was deleted meanwhile.

    Args:
        manager: of the sessions.
        record: to put.
        is_new: whether the store has never had the response.
    """
    responses = manager.responses
    with manager.store.transaction():
        try:
            if not is_new:
                responses.get(record.owner, record.id)
            if record.session_id:
                key = session_key(record.owner, record.session_id)
                manager.store.summary(key, record.owner)
        except (ResponseNotFoundError, SessionNotFoundError):
            with contextlib.suppress(ResponseNotFoundError):
                responses.delete(record.owner, record.id)
        else:
            responses.put(record)


def with_body(record: ResponseRecord, body: Mapping[str, Any]) -> ResponseRecord:
    """Return a record whose response is another."""
    return replace(record, status=str(body["status"]), body=to_json(body))


def as_dead(record: ResponseRecord) -> ResponseRecord:
    """Return the record of a response that ran when its server died."""
    error = {"code": _DIED, "message": "The server stopped while it answered; ask again"}
    return with_body(record, {**json.loads(record.body), "status": "failed", "error": error})


def is_dead(body: Mapping[str, Any]) -> bool:
    """Return whether a response ran when its server died, so that no event tells its end."""
    return bool(body["status"] == "failed" and body["error"]["code"] == _DIED)


def not_found(response_id: str) -> ApiError:
    """Return the error of a response that is not there."""
    return ApiError(
        404,
        f"Response with id {response_id[:128]!r} not found.",
        code="response_not_found",
        param="response_id",
    )
