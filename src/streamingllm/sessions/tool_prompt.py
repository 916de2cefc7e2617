"""Describe tools in the system prompt, for chat templates without a place for them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from streamingllm.sessions.transcript import ContentPart, Message

_INTRODUCTION = (
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n"
)
_INSTRUCTION = (
    "\n</tools>\n\nFor each function call, return a json object with function name and arguments "
    "within <tool_call></tool_call> XML tags:\n<tool_call>\n"
    '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
)


def as_described(tool: Mapping[str, Any]) -> dict[str, Any]:
    """Return a tool as a prompt describes it, without `strict`, which models do not know."""
    function = tool.get("function")
    if not isinstance(function, Mapping) or "strict" not in function:
        return dict(tool)
    return {**tool, "function": {key: function[key] for key in function if key != "strict"}}


def prompt_with_tools(system_prompt: str, tools: Sequence[Mapping[str, Any]]) -> str:
    """Return a system prompt that describes tools, in the words of the Hermes form.

    Source: the chat template of Qwen2.5.
    """
    signatures = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
    described = f"{_INTRODUCTION}{signatures}{_INSTRUCTION}"
    return f"{system_prompt}\n\n{described}" if system_prompt else described


def as_plain_messages(messages: Sequence[Message]) -> list[Message]:
    """Write calls and results as text, for a template that has no other place for them.

    Results that follow one another become one message, because some templates want roles to
    alternate.
    """
    plain: list[Message] = []
    is_after_result = False
    for message in messages:
        is_result = message.role == "tool"
        if is_result:
            text = f"<tool_response>\n{message.text}\n</tool_response>"
            if is_after_result:
                before = plain.pop()
                plain.append(_saying(before, f"{before.text}\n{text}"))
            else:
                plain.append(replace(_saying(message, text), role="user", tool_call_id=None))
        else:
            plain.append(_with_calls_as_text(message) if message.tool_calls else message)
        is_after_result = is_result
    return plain


def _with_calls_as_text(message: Message) -> Message:
    calls = [
        f'<tool_call>\n{{"name": {json.dumps(call.name)}, "arguments": {call.arguments}}}'
        "\n</tool_call>"
        for call in message.tool_calls
    ]
    texts = [message.text, *calls] if message.text else calls
    return replace(_saying(message, "\n".join(texts)), tool_calls=())


def _saying(message: Message, text: str) -> Message:
    return replace(message, parts=(ContentPart(text),))
