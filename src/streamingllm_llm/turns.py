"""Find the messages of a conversation that the server has not seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from streamingllm_llm.client import ServerClient

SESSION_HEADER = "x-session-id"
RESULT_FIELD = "streamingllm"
_TEXT_ROLES = ("system", "user", "assistant")


def chat_messages(prompt: Any) -> list[dict[str, str]]:
    """Return the messages of a prompt of `llm`, its history first, as a chat takes them.

    Raises:
        ValueError: a message has no text.
    """
    messages = []
    for message in prompt.messages:
        text = "".join(getattr(part, "text", "") for part in message.parts)
        if message.role not in _TEXT_ROLES:
            raise ValueError(f"role={message.role!r} is not supported; send texts")
        messages.append({"role": message.role, "content": text})
    return messages


def session_of(conversation: Any) -> str:
    """Return the id of the session that a conversation of `llm` has on the server."""
    return f"llm-{conversation.id}"


def unseen(
    client: ServerClient, conversation: Any, messages: Sequence[dict[str, str]]
) -> tuple[list[dict[str, str]], dict[str, str]]:
    """Return the messages to send, and the headers that name their session.

    The session is known to have the history if it gave the last answer, or if it has as many
    messages. Otherwise all are sent without a name, and the server matches them itself.

    Args:
        client: of the server.
        conversation: of `llm`; None outside of one.
        messages: all of the conversation, the new ones last.
    """
    if conversation is None:
        return list(messages), {}
    session_id = session_of(conversation)
    headers = {SESSION_HEADER: session_id}
    num_old = 1 + max((at for at, m in enumerate(messages) if m["role"] == "assistant"), default=-1)
    new = list(messages[num_old:])
    if num_old and _last_session(conversation) == session_id:
        return new, headers
    num_spoken = sum(message["role"] != "system" for message in messages[:num_old])
    num_kept = client.num_messages(session_id)
    if num_kept is None:
        return list(messages), headers
    if num_old and num_kept == num_spoken:
        return new, headers
    return list(messages), {}


def _last_session(conversation: Any) -> str | None:
    """Return the session of the last answer of this process."""
    if not conversation.responses:
        return None
    body = getattr(conversation.responses[-1], "response_json", None) or {}
    seen = body.get(RESULT_FIELD) or {}
    found = seen.get("session_id")
    return found if isinstance(found, str) else None
