"""Find out whether a chat template has a place for tools, and for what they return."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from streamingllm.errors import UnsupportedFeatureError
from streamingllm.sessions.control_text import placeholder_for
from streamingllm.sessions.template_input import as_json
from streamingllm.sessions.template_renderer import TemplateRenderer
from streamingllm.sessions.transcript import Message, ToolCall

_HELLO = Message.of_text("user", "Hello")


def has_place_for_tools(renderer: TemplateRenderer, system: Sequence[Message]) -> bool:
    """Return whether a template writes each tool; a long word is nowhere else."""
    word = _word(system)
    probe = {"name": word, "description": "", "parameters": {"type": "object"}}
    tools = [{"type": "function", "function": probe}]
    try:
        return word in str(renderer.render([*system, _HELLO], tools, is_answer_next=True))
    except UnsupportedFeatureError:
        return False


def check_place_for_results(
    renderer: TemplateRenderer, system: Sequence[Message], lm_name: str
) -> None:
    """Refuse a template that takes no results of calls.

    Raises:
        UnsupportedFeatureError: it leaves them out, or wants roles to alternate.
    """
    word = _word(system)
    call = ToolCall("abcdefghi", "f", "{}")
    asked = Message("assistant", tool_calls=(call,))
    result = replace(Message.of_text("tool", word), tool_call_id=call.id, name=call.name)
    try:
        messages = [*system, _HELLO, asked, result]
        is_written = word in str(renderer.render(messages, [], is_answer_next=True))
    except UnsupportedFeatureError:
        is_written = False
    if not is_written:
        raise UnsupportedFeatureError(
            f"the chat template of {lm_name} has no place for the results of tool calls; send "
            "tools as well, and both are written as text"
        )


def _word(system: Sequence[Message]) -> str:
    return placeholder_for([as_json(message) for message in system])
