"""Convert between items of the realtime API and messages."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from streamingllm.server.schemas.realtime import FunctionCallItem, FunctionCallOutputItem, Item
from streamingllm.sessions.transcript import ContentPart, Message, ToolCall

_ITEM = "realtime.item"


def message_of(item: Item) -> Message:
    """Return the message that an item is."""
    item_id = item.id or f"item_{uuid4().hex[:24]}"
    if isinstance(item, FunctionCallItem):
        call = ToolCall(item.call_id or f"call_{uuid4().hex[:24]}", item.name, item.arguments)
        return Message("assistant", tool_calls=(call,), id=item_id)
    if isinstance(item, FunctionCallOutputItem):
        return Message("tool", (ContentPart(item.output),), tool_call_id=item.call_id, id=item_id)
    parts = tuple(ContentPart(part.text) for part in item.content if part.text)
    return Message(item.role, parts, id=item_id)


def items_of(message: Message, status: str = "completed") -> list[dict[str, Any]]:
    """Return the items that a message is: one of its text, one of each call."""
    common = {"object": _ITEM, "status": status}
    if message.role == "tool":
        return [
            {
                "id": message.id,
                "type": "function_call_output",
                "call_id": message.tool_call_id,
                "output": message.text,
                **common,
            }
        ]
    items: list[dict[str, Any]] = []
    if message.text or not message.tool_calls:
        kind = "output_text" if message.role == "assistant" else "input_text"
        items.append(
            {
                "id": message.id,
                "type": "message",
                "role": message.role,
                "content": [{"type": kind, "text": part.text} for part in message.parts],
                **common,
            }
        )
    items += [call_item(call, status) for call in message.tool_calls]
    return items


def call_item(call: ToolCall, status: str = "completed") -> dict[str, Any]:
    """Return the item of a call; its id is that of the call."""
    return {
        "id": call.id,
        "object": _ITEM,
        "type": "function_call",
        "status": status,
        "call_id": call.id,
        "name": call.name,
        "arguments": call.arguments,
    }
