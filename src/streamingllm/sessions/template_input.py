"""Turn messages into what chat templates take."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from streamingllm.errors import InputError, UnsupportedFeatureError
from streamingllm.sessions.transcript import ContentPart, Message, ToolCall

Messages = str | Sequence[Message]
"""What is said next: a text of the user, or messages of any role."""

_ROLE = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


def as_messages(messages: Messages) -> list[Message]:
    """Return messages; a text is one of the user.

    Raises:
        InputError: a role is no word, so that a template could make a control token of it.
    """
    new = [Message.of_text("user", messages)] if isinstance(messages, str) else [*messages]
    for message in new:
        if not _ROLE.fullmatch(message.role):
            raise InputError(
                f"role={message.role!r} is no role; use letters, digits, '_' and '-' only"
            )
    return new


def answer_ending_with(word: str, calls: Sequence[ToolCall] = ()) -> Message:
    """Return an answer that ends with a word, as does each tool call that it makes."""
    arguments = json.dumps({"word": word})
    return Message(
        "assistant",
        (ContentPart(word),),
        tool_calls=tuple(replace(call, arguments=arguments) for call in calls),
    )


def as_json(message: Message, arguments_as_object: bool = True) -> dict[str, Any]:
    """Return a message as templates take it, its texts joined line by line.

    Args:
        message: to convert.
        arguments_as_object: whether the arguments of a tool call are an object, or its JSON.

    Raises:
        InputError: the arguments of a tool call are no JSON.
    """
    found: dict[str, Any] = {"role": message.role, "content": message.text}
    if message.tool_calls:
        found["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {
                    "name": call.name,
                    "arguments": _arguments(call) if arguments_as_object else call.arguments,
                },
            }
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        found["tool_call_id"] = message.tool_call_id
    if message.name is not None:
        found["name"] = message.name
    return found


def changes_what_was_said(lm_name: str) -> UnsupportedFeatureError:
    """Return the error of a chat template whose pieces cannot be told apart."""
    return UnsupportedFeatureError(
        f"{lm_name} cannot chat in a stream: its chat template changes what was said; "
        "use a model with another template"
    )


def shared_beginning(a: str, b: str) -> str:
    """Return the longest text that both begin with."""
    length = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), None)
    return a[:length] if length is not None else min(a, b, key=len)


def _arguments(call: ToolCall) -> Any:
    try:
        return json.loads(call.arguments)
    except json.JSONDecodeError as error:
        raise InputError(
            f"arguments={call.arguments!r} of the tool call {call.name!r} are no JSON ({error}); "
            "send an object"
        ) from error
