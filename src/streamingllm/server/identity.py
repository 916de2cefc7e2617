"""Find out which session a request goes on with."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from streamingllm.errors import InputError
from streamingllm.sessions.turn import Identity

SESSION_HEADER = "x-session-id"
_CHAT_HEADERS = ("x-openwebui-chat-id", "x-chat-id", "x-conversation-id")
_TASK_HEADER = "x-openwebui-task"
METADATA_FIELD = "session_id"
_ID = re.compile(r"[A-Za-z0-9._:@+=-]{1,128}")


def identity_of(
    headers: Mapping[str, str],
    metadata: Mapping[str, Any] | None = None,
    *,
    conversation: str | None = None,
    previous: tuple[str, str] | None = None,
    session_id: str | None = None,
) -> tuple[Identity, bool]:
    """Return the identity that a request names, and whether the request is a side task.

    The first of these decides: conversation, previous response, session id of a header or of the
    request, chat id of a header, session id of the metadata, the transcript.

    Args:
        headers: of the request; their names are lower case, or the mapping ignores case.
        metadata: of the request.
        conversation: id of a conversation, which is a session.
        previous: session of the previous response, and the last message of that.
        session_id: of the request's field `streamingllm`.

    Raises:
        InputError: an id has characters that no header can carry, or two session ids differ.
    """
    is_side_task = bool(headers.get(_TASK_HEADER, "").strip())
    return _identity(headers, metadata or {}, conversation, previous, session_id), is_side_task


def without_identity(headers: Mapping[str, str]) -> dict[str, str]:
    """Return headers that name no session."""
    named = (SESSION_HEADER, *_CHAT_HEADERS)
    return {name: value for name, value in headers.items() if name.lower() not in named}


def _identity(
    headers: Mapping[str, str],
    metadata: Mapping[str, Any],
    conversation: str | None,
    previous: tuple[str, str] | None,
    session_id: str | None,
) -> Identity:
    if conversation:
        return Identity("session", _checked("conversation", conversation))
    if previous is not None:
        return Identity("point", *previous)
    named = headers.get(SESSION_HEADER) or None
    if named is not None and session_id is not None and named != session_id:
        raise InputError(
            f"session_id={session_id[:128]!r} differs from the header {SESSION_HEADER}="
            f"{named[:128]!r}; send one of them"
        )
    if named is not None:
        return Identity("session", _checked(SESSION_HEADER, named))
    if session_id is not None:
        return Identity("session", _checked("session_id", session_id))
    for header in _CHAT_HEADERS:
        if chat := headers.get(header):
            return Identity("chat", _checked(header, chat))
    if (of_metadata := metadata.get(METADATA_FIELD)) is not None:
        return Identity("session", _checked("metadata.session_id", of_metadata))
    return Identity("transcript")


def _checked(name: str, value: object) -> str:
    if not isinstance(value, str) or not _ID.fullmatch(value):
        shown = repr(value)[:130]
        raise InputError(f"{name}={shown} is no id; use 1 to 128 letters, digits and '._:@+=-'")
    return value
