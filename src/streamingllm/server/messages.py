"""Turn the messages of the APIs into messages of a transcript."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from streamingllm.server.schemas.chat import (
    AssistantMessage,
    ChatMessage,
    SystemMessage,
    Tool,
    ToolMessage,
)
from streamingllm.server.schemas.common import TextPart
from streamingllm.sessions.transcript import ContentPart, Message, ToolCall

_SYSTEM = "system"
# Some coding agents put a line into their system prompt that differs with each request.
_BILLING = re.compile(r"^x-anthropic-billing-header:[^\n]*\n*", re.MULTILINE)


def without_billing(text: str) -> str:
    """Return a system prompt without lines that clients add for billing."""
    return _BILLING.sub("", text)


def system_prompt_of(texts: Iterable[str]) -> str | None:
    """Return one system prompt of several texts, None if there is none."""
    found = [without_billing(text) for text in texts]
    return "\n\n".join(filter(None, found)) if found else None


def split_system_prompt(messages: Sequence[Message]) -> tuple[str | None, tuple[Message, ...]]:
    """Return the system prompt that leads a history, and the messages after it."""
    number = next((i for i, m in enumerate(messages) if m.role != _SYSTEM), len(messages))
    return system_prompt_of(m.text for m in messages[:number]), tuple(messages[number:])


def chat_messages(messages: Sequence[ChatMessage]) -> list[Message]:
    """Return the messages of a chat completion; a developer is a system."""
    return [_chat_message(message) for message in messages]


def chat_tools(tools: Sequence[Tool] | None) -> tuple[Mapping[str, Any], ...] | None:
    """Return tools as chat templates take them; None leaves a session's own."""
    if tools is None:
        return None
    return tuple(
        function_tool(
            tool.function.name,
            tool.function.description,
            tool.function.parameters,
            is_strict=bool(tool.function.strict),
        )
        for tool in tools
    )


def function_tool(
    name: str,
    description: str | None,
    parameters: Mapping[str, Any] | None,
    *,
    is_strict: bool = False,
) -> dict[str, Any]:
    """Return a function as chat templates take it, and whether each call follows its schema."""
    function: dict[str, Any] = {"name": name}
    if description is not None:
        function["description"] = description
    function["parameters"] = parameters or {"type": "object", "properties": {}}
    if is_strict:
        function["strict"] = True
    return {"type": "function", "function": function}


def arguments_of(value: Mapping[str, Any]) -> str:
    """Return the arguments of a call as JSON text."""
    return json.dumps(value, ensure_ascii=False)


def arguments_object(arguments: str) -> dict[str, Any]:
    """Return the arguments of a call as an object; what is none stands under `arguments`."""
    try:
        value = json.loads(arguments or "{}")
    except ValueError:
        value = arguments
    return value if isinstance(value, dict) else {"arguments": value}


def answer_parts(texts: Sequence[str]) -> tuple[ContentPart, ...]:
    """Return the parts of an answer: one text, as it was generated."""
    text = "".join(texts)
    return (ContentPart(text),) if text else ()


def _chat_message(message: ChatMessage) -> Message:
    if isinstance(message, AssistantMessage):
        calls = message.tool_calls or ()
        return Message(
            "assistant",
            answer_parts([part.text for part in message.content or ()]),
            tool_calls=tuple(
                ToolCall(call.id, call.function.name, call.function.arguments or "{}")
                for call in calls
            ),
            name=message.name,
        )
    if isinstance(message, ToolMessage):
        return Message(
            "tool", _parts(message.content), tool_call_id=message.tool_call_id, name=message.name
        )
    role = _SYSTEM if isinstance(message, SystemMessage) else "user"
    return Message(role, _parts(message.content), name=message.name)


def _parts(content: Sequence[TextPart]) -> tuple[ContentPart, ...]:
    return tuple(ContentPart(part.text) for part in content)
