"""Find the key of a request: requests of one session have the same, as far as can be seen."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Any

from streamingllm.cluster.forwarding import ForwardedRequest
from streamingllm.sessions.turn_attempt import hex_of

_HEADERS = ("x-session-id", "x-openwebui-chat-id", "x-chat-id", "x-conversation-id")
_NAMED = ("/v1/sessions/", "/v1/conversations/")
_RESPONSES = "/v1/responses/"
_OPTIONS = "streamingllm"


def routing_key(
    request: ForwardedRequest, turn_id: str, session_of: Callable[[str], str | None]
) -> str:
    """Return the key of a request; correctness does not depend on it, speed does.

    Args:
        request: of a client.
        turn_id: from which the id of a session that it creates follows.
        session_of: returns the session of a stored response.
    """
    for name in _HEADERS:
        if value := request.header(name):
            return value
    for prefix in _NAMED:
        if request.path.startswith(prefix):
            return request.path.removeprefix(prefix).partition("/")[0]
    if request.path.startswith(_RESPONSES):
        response_id = request.path.removeprefix(_RESPONSES).partition("/")[0]
        if (session := session_of(response_id)) is not None:
            return session
    return _of_body(_json(request.body), session_of) or f"sess_{hex_of(turn_id, 'sess_')}"


def _of_body(body: Mapping[str, Any], session_of: Callable[[str], str | None]) -> str | None:
    conversation = body.get("conversation")
    named = [
        conversation.get("id") if isinstance(conversation, dict) else conversation,
        _field(body, _OPTIONS, "session_id"),
        _field(body, "metadata", "session_id"),
    ]
    for value in named:
        if isinstance(value, str) and value:
            return value
    previous = body.get("previous_response_id")
    if isinstance(previous, str):
        return session_of(previous)
    messages = body.get("messages")
    if isinstance(messages, list):
        # A client that sends its whole history begins it with the same words each time.
        first = next((m for m in messages if isinstance(m, dict) and m.get("role") == "user"), None)
        if first is not None:
            said = json.dumps(first.get("content"), sort_keys=True).encode()
            return blake2b(said, digest_size=16).hexdigest()
    return None


def _field(body: Mapping[str, Any], outer: str, inner: str) -> Any:
    found = body.get(outer)
    return found.get(inner) if isinstance(found, dict) else None


def _json(body: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(body) if body else {}
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
