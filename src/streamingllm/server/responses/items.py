"""Convert between items of the specification and messages of a transcript."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from streamingllm.server.responses.compaction import Place, place_of
from streamingllm.server.schemas.responses import (
    CompactionItem,
    FunctionCallItem,
    FunctionCallOutputItem,
    Input,
    ItemReference,
    MessageItem,
    Parts,
)
from streamingllm.sessions.transcript import ContentPart, Message, ToolCall

_ASSISTANT = "assistant"


@dataclass
class ReadInput:
    """Hold what an input says.

    Args:
        messages: in order; a developer is a system.
        place: where the input goes on, if it begins with a compaction.
        references: ids of items that the session should have.
    """

    messages: list[Message] = field(default_factory=list)
    place: Place | None = None
    references: list[str] = field(default_factory=list)

    def unknown_call(self, known: Sequence[Message] = ()) -> str | None:
        """Return the id of a call that has a result here but was never asked for."""
        calls = {call.id for message in known for call in message.tool_calls}
        for message in self.messages:
            calls |= {call.id for call in message.tool_calls}
            if message.tool_call_id is not None and message.tool_call_id not in calls:
                return message.tool_call_id
        return None


def read_input(given: Input | None) -> ReadInput:
    """Return the messages of an input.

    Raises:
        ApiError: a compaction item is none of ours.
    """
    read = ReadInput()
    if isinstance(given, str):
        read.messages.append(Message.of_text("user", given))
        return read
    for item in given or ():
        if isinstance(item, CompactionItem):
            # What stands before it is what was compacted.
            read.messages, read.place = [], place_of(item.encrypted_content)
        elif isinstance(item, ItemReference):
            read.references.append(item.id)
        elif isinstance(item, MessageItem):
            role = "system" if item.role == "developer" else item.role
            read.messages.append(Message(role, _content(item.content)))
        elif isinstance(item, FunctionCallItem):
            _add_call(read.messages, ToolCall(item.call_id, item.name, item.arguments))
        elif isinstance(item, FunctionCallOutputItem):
            said = _content(item.output)
            read.messages.append(Message("tool", said, tool_call_id=item.call_id))
    return read


def items_of(message: Message) -> list[dict[str, Any]]:
    """Return the items that a message of a transcript is."""
    if message.role == "tool":
        return [
            {
                "type": "function_call_output",
                "id": message.id,
                "call_id": message.tool_call_id or "",
                "output": message.text,
                "status": "completed",
            }
        ]
    items = [] if message.tool_calls and not message.text else [message_item(message)]
    items += [call_item(call) for call in message.tool_calls]
    return items


def message_item(message: Message) -> dict[str, Any]:
    """Return the item of a message's text."""
    is_answer = message.role == _ASSISTANT
    content = [
        {"type": "output_text", "text": part.text, "annotations": [], "logprobs": []}
        if is_answer
        else {"type": "input_text", "text": part.text}
        for part in message.parts
    ]
    return {
        "type": "message",
        "id": message.id,
        "status": "completed",
        "role": message.role,
        "content": content,
    }


def call_item(call: ToolCall, status: str = "completed") -> dict[str, Any]:
    """Return the item of a call."""
    return {
        "type": "function_call",
        "id": f"fc_{call.id}",
        "call_id": call.id,
        "name": call.name,
        "arguments": call.arguments,
        "status": status,
    }


def _content(parts: Parts) -> tuple[ContentPart, ...]:
    texts = (part.text or part.refusal for part in parts)
    return tuple(ContentPart(text) for text in texts if text)


def _add_call(messages: list[Message], call: ToolCall) -> None:
    """Add a call to the answer that asks for it, which may have said something before."""
    if messages and messages[-1].role == _ASSISTANT:
        messages[-1] = replace(messages[-1], tool_calls=(*messages[-1].tool_calls, call))
    else:
        messages.append(Message(_ASSISTANT, tool_calls=(call,)))
