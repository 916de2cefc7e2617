"""Messages as JSON, for stores."""

from __future__ import annotations

import json
from typing import Any

from streamingllm.errors import InputError
from streamingllm.sessions.transcript import ContentPart, Message, ToolCall


def message_to_json(message: Message) -> str:
    """Return a message as one line of JSON."""
    fields: dict[str, Any] = {
        "id": message.id,
        "role": message.role,
        "first": message.first,
        "stop": message.stop,
        "begins_turn": message.begins_turn,
        "parts": [{"type": part.type, "text": part.text} for part in message.parts],
        "tool_calls": [
            {"id": call.id, "name": call.name, "arguments": call.arguments}
            for call in message.tool_calls
        ],
        "tool_call_id": message.tool_call_id,
        "name": message.name,
    }
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))


def message_from_json(text: str) -> Message:
    """Return the message that `message_to_json` wrote.

    Raises:
        InputError: the text is no such message.
    """
    try:
        fields = json.loads(text)
        message = Message(
            id=_str(fields["id"]),
            role=_str(fields["role"]),
            first=_int(fields["first"]),
            stop=_int(fields["stop"]),
            begins_turn=bool(fields["begins_turn"]),
            parts=tuple(ContentPart(_str(p["text"]), _str(p["type"])) for p in fields["parts"]),
            tool_calls=tuple(
                ToolCall(_str(c["id"]), _str(c["name"]), _str(c["arguments"]))
                for c in fields["tool_calls"]
            ),
            tool_call_id=None if fields["tool_call_id"] is None else _str(fields["tool_call_id"]),
            name=None if fields["name"] is None else _str(fields["name"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"text={text[:40]!r}... is no message ({error!r})") from error
    return message


def _str(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no string")
    return value


def _int(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{value!r} is no whole number")
    return value
