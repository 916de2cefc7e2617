"""Requests of /v1/chat/completions."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from streamingllm.server.schemas.common import (
    ApiModel,
    FunctionName,
    JsonObject,
    Metadata,
    TextContent,
    TokenCount,
)
from streamingllm.server.schemas.generation import GenerationRequest

Name = Annotated[str, StringConstraints(min_length=1, max_length=128)]
ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh"]


class SystemMessage(ApiModel):
    """Instruct the model; before the first other message it is pinned."""

    role: Literal["system", "developer"]
    content: TextContent
    name: Name | None = None


class UserMessage(ApiModel):
    """Hold what a user says."""

    role: Literal["user"]
    content: TextContent
    name: Name | None = None


class CalledFunction(ApiModel):
    """Name a function and its arguments, a JSON text."""

    name: FunctionName
    arguments: str


class ToolCallInput(ApiModel):
    """Hold a call that an earlier answer asked for."""

    id: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    type: Literal["function"] = "function"
    function: CalledFunction
    index: int | None = None


class AssistantMessage(ApiModel):
    """Hold an earlier answer; as the last message, the answer goes on from it.

    Its reasoning is accepted because clients send it back; no history contains it.
    """

    role: Literal["assistant"]
    content: TextContent | None = None
    name: Name | None = None
    tool_calls: list[ToolCallInput] | None = None
    reasoning_content: str | None = None


class ToolMessage(ApiModel):
    """Hold the result of a tool call."""

    role: Literal["tool"]
    content: TextContent
    tool_call_id: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    name: Name | None = None


ChatMessage = Annotated[
    SystemMessage | UserMessage | AssistantMessage | ToolMessage,
    Field(discriminator="role"),
]


class FunctionDefinition(ApiModel):
    """Describe a function by its JSON schema."""

    name: FunctionName
    description: str | None = None
    parameters: JsonObject | None = None
    strict: bool | None = None


class Tool(ApiModel):
    """Offer a function to the model."""

    type: Literal["function"]
    function: FunctionDefinition


class FunctionChoice(ApiModel):
    """Name a function."""

    name: FunctionName


class NamedToolChoice(ApiModel):
    """Ask for a call of one function."""

    type: Literal["function"]
    function: FunctionChoice


class ChatRequest(GenerationRequest):
    """Ask for the answer to a conversation."""

    messages: list[ChatMessage] = Field(min_length=1)
    max_tokens: TokenCount | None = None
    max_completion_tokens: TokenCount | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    tools: list[Tool] | None = Field(default=None, max_length=128)
    tool_choice: Literal["none", "auto", "required"] | NamedToolChoice | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: ReasoningEffort | None = None
    chat_template_kwargs: JsonObject | None = None
    modalities: list[Literal["text"]] | None = None
    verbosity: Literal["medium"] | None = None
    metadata: Metadata | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: Literal["in_memory", "in-memory", "24h"] | None = None
    store: bool | None = None
    service_tier: Literal["auto", "default"] | None = None

    @model_validator(mode="after")
    def _check_pairs(self) -> ChatRequest:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError(
                f"top_logprobs={self.top_logprobs} needs logprobs=true; set it or leave it out"
            )
        most = {self.max_tokens, self.max_completion_tokens} - {None}
        if len(most) > 1:
            raise ValueError(
                f"max_tokens={self.max_tokens} differs from max_completion_tokens="
                f"{self.max_completion_tokens}; send one of them"
            )
        return self._check_tool_choice()

    def _check_tool_choice(self) -> ChatRequest:
        names = {tool.function.name for tool in self.tools or ()}
        if isinstance(self.tool_choice, NamedToolChoice):
            chosen = self.tool_choice.function.name
            if chosen not in names:
                raise ValueError(
                    f"tool_choice={chosen!r} is not among the tools; name one of {sorted(names)}"
                )
        elif self.tool_choice == "required" and not names:
            raise ValueError("tool_choice='required' needs tools; send at least one")
        return self
