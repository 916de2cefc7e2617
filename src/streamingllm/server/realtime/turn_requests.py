"""Settings of a realtime session, and the turns that they make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from streamingllm.server.realtime.items import message_of
from streamingllm.server.schemas.realtime import (
    FunctionTool,
    NamedFunction,
    ResponseSettings,
    SessionFields,
    SessionSettings,
)
from streamingllm.sessions.turn import Identity, ToolMode, TurnRequest
from streamingllm.stream.sampling import SamplingParams

_INF = "inf"
ToolChoice = str | NamedFunction


@dataclass
class RealtimeSettings:
    """Hold the settings of a session.

    Args:
        model: name of the served model.
        params: sampling parameters.
        instructions: system prompt; None for the operator's.
        tools: as a chat template takes them; None leaves the session's.
        tool_choice: whether the answer may, must not or must call a tool.
        truncation: "auto" evicts.
    """

    model: str
    params: SamplingParams
    instructions: str | None = None
    tools: tuple[Mapping[str, Any], ...] | None = None
    tool_choice: ToolChoice = "auto"
    truncation: str = "auto"

    def update(self, fields: SessionFields) -> None:
        """Take over the fields that are set."""
        if fields.instructions is not None:
            self.instructions = fields.instructions
        if "tools" in fields.model_fields_set:
            self.tools = _tools(fields.tools or [])
        if fields.tool_choice is not None:
            self.tool_choice = fields.tool_choice
        if fields.max_output_tokens is not None:
            most = None if fields.max_output_tokens == _INF else int(fields.max_output_tokens)
            self.params = replace(self.params, max_new_tokens=most)
        if isinstance(fields, SessionSettings) and fields.truncation is not None:
            self.truncation = fields.truncation

    def as_json(self) -> dict[str, Any]:
        """Return the settings as the API shows them."""
        most, choice = self.params.max_new_tokens, self.tool_choice
        return {
            "model": self.model,
            "output_modalities": ["text"],
            "instructions": self.instructions or "",
            "tools": [{"type": "function", **tool["function"]} for tool in self.tools or ()],
            "tool_choice": choice if isinstance(choice, str) else choice.model_dump(),
            "max_output_tokens": _INF if most is None else most,
            "truncation": self.truncation,
        }


def turn_request(
    owner: str,
    settings: RealtimeSettings,
    fields: ResponseSettings,
    identity: Identity,
    *,
    is_apart: bool,
) -> TurnRequest:
    """Return the turn that a response is.

    Args:
        owner: of the client's key.
        settings: of the session.
        fields: of the response, which take precedence.
        identity: of the session.
        is_apart: whether the response leaves the session as it is.
    """
    own = replace(settings)
    own.update(fields)
    mode, name = _tool_mode(own.tool_choice)
    return TurnRequest(
        owner,
        tuple(message_of(item) for item in fields.input or []),
        own.params,
        identity,
        system_prompt=own.instructions,
        tools=own.tools,
        tool_mode=mode,
        tool_name=name,
        parallel_tool_calls=fields.parallel_tool_calls is not False,
        truncation="disabled" if own.truncation == "disabled" else "auto",
        is_side_task=is_apart,
    )


def _tools(tools: list[FunctionTool]) -> tuple[Mapping[str, Any], ...]:
    return tuple(
        {"type": "function", "function": tool.model_dump(exclude={"type"}, exclude_none=True)}
        for tool in tools
    )


def _tool_mode(choice: ToolChoice) -> tuple[ToolMode, str | None]:
    if isinstance(choice, NamedFunction):
        return "required", choice.name
    if choice == "none":
        return "none", None
    return ("required" if choice == "required" else "auto"), None
