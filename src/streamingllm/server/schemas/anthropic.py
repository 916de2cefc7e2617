"""Requests of /v1/messages, the Messages API of Anthropic."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, StringConstraints, model_validator

from streamingllm.server.schemas.common import (
    ApiModel,
    FunctionName,
    JsonObject,
    Probability,
    RequestModel,
    StopStrings,
    StreamingOptions,
    TokenCount,
    TopK,
    as_parts,
)

CallId = Annotated[str, StringConstraints(min_length=1, max_length=256)]


class CacheControl(ApiModel):
    """Ask for a prefix to be cached, which it always is."""

    type: Literal["ephemeral"]
    ttl: Literal["5m", "1h"] | None = None


class Block(ApiModel):
    """Hold one part of a message."""

    cache_control: CacheControl | None = None


class TextBlock(Block):
    """Hold a text."""

    type: Literal["text"]
    text: str


Texts = Annotated[
    list[TextBlock], BeforeValidator(as_parts, json_schema_input_type=str | list[TextBlock])
]


class ThinkingBlock(Block):
    """Hold reasoning that a client sends back; no history contains it."""

    type: Literal["thinking"]
    thinking: str
    signature: str | None = None


class RedactedThinkingBlock(Block):
    """Hold reasoning that another server hid; no history contains it."""

    type: Literal["redacted_thinking"]
    data: str


class ToolUseBlock(Block):
    """Hold a call that an earlier answer asked for."""

    type: Literal["tool_use"]
    id: CallId
    name: FunctionName
    input: JsonObject
    caller: JsonObject | None = None


class ToolResultBlock(Block):
    """Hold the result of a tool call; one that is an error is told so to the model."""

    type: Literal["tool_result"]
    tool_use_id: CallId
    content: Texts | None = None
    is_error: bool | None = None


UserBlock = Annotated[TextBlock | ToolResultBlock, Field(discriminator="type")]
AssistantBlock = Annotated[
    TextBlock | ThinkingBlock | RedactedThinkingBlock | ToolUseBlock, Field(discriminator="type")
]


class UserTurn(ApiModel):
    """Hold what a user says, and results of tools."""

    role: Literal["user"]
    content: Annotated[
        list[UserBlock], BeforeValidator(as_parts, json_schema_input_type=str | list[UserBlock])
    ]


class AssistantTurn(ApiModel):
    """Hold an earlier answer; as the last message, the answer goes on from it."""

    role: Literal["assistant"]
    content: Annotated[
        list[AssistantBlock],
        BeforeValidator(as_parts, json_schema_input_type=str | list[AssistantBlock]),
    ]


class SystemTurn(ApiModel):
    """Instruct the model between two turns."""

    role: Literal["system"]
    content: Texts


Turn = Annotated[UserTurn | AssistantTurn | SystemTurn, Field(discriminator="role")]


class CustomTool(ApiModel):
    """Offer a function to the model; its input is always streamed as it is generated."""

    name: FunctionName
    description: str | None = None
    input_schema: JsonObject
    type: Literal["custom"] | None = None
    strict: bool | None = None
    cache_control: CacheControl | None = None
    eager_input_streaming: bool | None = None
    defer_loading: Literal[False] | None = None
    allowed_callers: list[Literal["direct"]] | None = None


class ToolChoice(ApiModel):
    """Choose whether the answer may, must or must not call a tool."""

    type: Literal["auto", "any", "tool", "none"]
    name: FunctionName | None = None
    disable_parallel_tool_use: bool | None = None

    @model_validator(mode="after")
    def _check_name(self) -> ToolChoice:
        if (self.type == "tool") != (self.name is not None):
            raise ValueError(
                f"name={self.name!r} does not go with type={self.type!r}; name a tool with "
                "type='tool' only"
            )
        return self


class Thinking(ApiModel):
    """Choose whether the model reasons; one that cannot says so in the answer."""

    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: TokenCount | None = None
    display: Literal["summarized", "omitted", "full"] | None = None


class JsonFormat(ApiModel):
    """Hold a JSON schema that the answer follows."""

    type: Literal["json_schema"]
    schema_: JsonObject = Field(alias="schema")


class OutputConfig(ApiModel):
    """Choose the effort and the format of an answer."""

    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: JsonFormat | None = None


class ContextEdit(ApiModel):
    """Ask for old reasoning to be cleared, which no history contains."""

    type: Literal["clear_thinking_20251015"]
    keep: Literal["all"] | JsonObject | None = None


class ContextManagement(ApiModel):
    """List edits of the context; a session evicts by itself."""

    edits: list[ContextEdit] = Field(default_factory=list)


class AnthropicMetadata(ApiModel):
    """Name the user, and the session to go on with."""

    user_id: Annotated[str, StringConstraints(max_length=1024)] | None = None
    session_id: str | None = None


class CountTokensRequest(RequestModel):
    """Ask how many tokens an answer would build on."""

    model: str
    messages: list[Turn] = Field(min_length=1)
    system: Texts | None = None
    tools: list[CustomTool] | None = Field(default=None, max_length=128)
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    output_format: JsonFormat | None = None
    context_management: ContextManagement | None = None
    cache_control: CacheControl | None = None

    @model_validator(mode="after")
    def _check_tool_choice(self) -> CountTokensRequest:
        names = {tool.name for tool in self.tools or ()}
        choice = self.tool_choice
        if choice is None or choice.type in ("auto", "none"):
            return self
        if not names or (choice.name is not None and choice.name not in names):
            raise ValueError(
                f"tool_choice={choice.name or choice.type!r} does not go with tools="
                f"{sorted(names)}; offer the tool"
            )
        return self


class MessagesRequest(CountTokensRequest):
    """Ask for the answer to a conversation."""

    max_tokens: TokenCount
    stream: bool | None = None
    temperature: Probability | None = None
    top_p: Probability | None = None
    top_k: TopK | None = None
    stop_sequences: StopStrings | None = None
    metadata: AnthropicMetadata | None = None
    service_tier: Literal["auto", "standard_only"] | None = None
    speed: Literal["standard"] | None = None
    streamingllm: StreamingOptions | None = None

    @property
    def options(self) -> StreamingOptions:
        """Return our own settings."""
        return self.streamingllm or StreamingOptions()
