"""Turn requests of Anthropic's API into messages, tools and sampling parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from streamingllm.models import LanguageModel
from streamingllm.server.messages import (
    answer_parts,
    arguments_of,
    function_tool,
    system_prompt_of,
)
from streamingllm.server.reasoning import reasoning_switch, reasoning_variables
from streamingllm.server.schemas.anthropic import (
    AssistantTurn,
    CountTokensRequest,
    CustomTool,
    TextBlock,
    ToolResultBlock,
    ToolUseBlock,
    Turn,
    UserTurn,
)
from streamingllm.sessions.reasoning import can_reason
from streamingllm.sessions.transcript import ContentPart, Message, ToolCall
from streamingllm.sessions.turn import ToolMode

_ERROR = "Error: "
_MODES: dict[str, ToolMode] = {
    "auto": "auto",
    "any": "required",
    "tool": "required",
    "none": "none",
}


def anthropic_messages(turns: Sequence[Turn]) -> tuple[Message, ...]:
    """Return the messages of turns; a tool's result is a message of its own."""
    return tuple(message for turn in turns for message in _messages(turn))


def anthropic_system_prompt(body: CountTokensRequest) -> str | None:
    """Return the system prompt without the block that some clients put in for billing."""
    if body.system is None:
        return None
    return system_prompt_of(block.text for block in body.system)


def anthropic_tools(tools: Sequence[CustomTool] | None) -> tuple[Mapping[str, Any], ...] | None:
    """Return tools as chat templates take them; None leaves a session's own."""
    if tools is None:
        return None
    return tuple(
        function_tool(tool.name, tool.description, tool.input_schema, is_strict=bool(tool.strict))
        for tool in tools
    )


def tool_mode_of(body: CountTokensRequest) -> ToolMode:
    """Return whether the answer may, must not or must call a tool."""
    return "auto" if body.tool_choice is None else _MODES[body.tool_choice.type]


@dataclass(frozen=True)
class ReasoningChoice:
    """Hold how a chat template is told to reason, and fields that have no effect on it.

    Args:
        variables: of the chat template.
        ignored: reasons, by the name of a field.
    """

    variables: Mapping[str, Any]
    ignored: Mapping[str, str]


def reasoning_of(body: CountTokensRequest, lm: LanguageModel) -> ReasoningChoice:
    """Return what the fields `thinking` and `output_config.effort` do to a model.

    Coding agents send them to every model, so what has no effect is reported in the answer.
    """
    variables: dict[str, Any] = {}
    ignored: dict[str, str] = {}
    thinking = body.thinking
    if thinking is not None and thinking.type != "disabled" and not can_reason(lm):
        ignored["thinking"] = f"{lm.name} does not reason"
    elif thinking is not None and thinking.budget_tokens is not None:
        ignored["thinking.budget_tokens"] = "max_tokens alone bounds reasoning"
    if thinking is not None:
        variables |= reasoning_switch(lm, thinking.type != "disabled")
    effort = None if body.output_config is None else body.output_config.effort
    try:
        variables |= reasoning_variables(lm, effort)
    except NotImplementedError:
        ignored["output_config.effort"] = f"{lm.name} has one effort"
    return ReasoningChoice(variables, ignored)


def _messages(turn: Turn) -> Iterator[Message]:
    if isinstance(turn, AssistantTurn):
        texts = [block.text for block in turn.content if isinstance(block, TextBlock)]
        calls = tuple(
            ToolCall(block.id, block.name, arguments_of(block.input))
            for block in turn.content
            if isinstance(block, ToolUseBlock)
        )
        yield Message("assistant", answer_parts(texts), tool_calls=calls)
        return
    parts: list[ContentPart] = []
    for block in turn.content:
        if isinstance(block, ToolResultBlock):
            yield _tool_result(block)
        else:
            parts.append(ContentPart(block.text))
    if parts or not turn.content:
        yield Message("user" if isinstance(turn, UserTurn) else "system", tuple(parts))


def _tool_result(block: ToolResultBlock) -> Message:
    texts = [part.text for part in block.content or ()]
    if block.is_error:
        texts[:1] = [_ERROR + "".join(texts[:1])]
    parts = tuple(ContentPart(text) for text in texts)
    return Message("tool", parts, tool_call_id=block.tool_use_id)
