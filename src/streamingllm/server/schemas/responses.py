"""Requests of /v1/responses, as the Open Responses specification has them; text only."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StringConstraints

from streamingllm.server.schemas.common import (
    ApiModel,
    FunctionName,
    JsonObject,
    Metadata,
    Penalty,
    Probability,
    RequestModel,
    Seed,
    StopStrings,
    StreamingOptions,
    Temperature,
    TokenCount,
)

ShortText = Annotated[str, StringConstraints(max_length=64)]
ItemId = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Status = Literal["in_progress", "completed", "incomplete"]


class TextItemPart(ApiModel):
    """Hold one text of a message."""

    type: Literal["input_text", "output_text", "text", "summary_text", "reasoning_text", "refusal"]
    text: str = ""
    refusal: str = ""
    annotations: list[JsonObject] | None = None
    logprobs: list[JsonObject] | None = None


def _as_parts(value: Any) -> Any:
    return [{"type": "input_text", "text": value}] if isinstance(value, str) else value


Parts = Annotated[list[TextItemPart], BeforeValidator(_as_parts)]


class MessageItem(ApiModel):
    """Hold a message."""

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: Parts
    id: ItemId | None = None
    status: Status | None = None
    phase: Literal["commentary", "final_answer"] | None = None


class FunctionCallItem(ApiModel):
    """Hold a call that an earlier answer asked for."""

    type: Literal["function_call"]
    call_id: ItemId
    name: FunctionName
    arguments: str
    id: ItemId | None = None
    status: Status | None = None


class FunctionCallOutputItem(ApiModel):
    """Hold the result of a call."""

    type: Literal["function_call_output"]
    call_id: ItemId
    output: Parts
    id: ItemId | None = None
    status: Status | None = None


class ReasoningItem(ApiModel):
    """Hold reasoning of an earlier answer, which is no part of a history."""

    type: Literal["reasoning"]
    summary: list[TextItemPart] | None = None
    content: list[TextItemPart] | None = None
    encrypted_content: str | None = None
    id: ItemId | None = None
    status: Status | None = None


class CompactionItem(ApiModel):
    """Hold what a compaction returned: the place in a session where the input goes on."""

    type: Literal["compaction"]
    encrypted_content: Annotated[str, StringConstraints(min_length=1, max_length=4096)]
    id: ItemId | None = None
    created_by: str | None = None


class ItemReference(ApiModel):
    """Name an item that the session has."""

    type: Literal["item_reference"]
    id: ItemId


def _with_type(value: Any) -> Any:
    """Name the type of items that clients send without one."""
    if isinstance(value, dict) and value.get("type") is None:
        kind = "message" if "role" in value else "item_reference"
        return {**value, "type": kind}
    return value


InputItem = Annotated[
    MessageItem
    | FunctionCallItem
    | FunctionCallOutputItem
    | ReasoningItem
    | CompactionItem
    | ItemReference,
    Field(discriminator="type"),
]
Item = Annotated[InputItem, BeforeValidator(_with_type)]
Input = Annotated[str, StringConstraints(max_length=10_485_760)] | list[Item]


class FunctionTool(ApiModel):
    """Describe a function by its JSON schema."""

    type: Literal["function"]
    name: FunctionName
    description: str | None = None
    parameters: JsonObject | None = None
    strict: bool | None = None


class FunctionChoice(ApiModel):
    """Ask for a call of one function."""

    type: Literal["function"]
    name: FunctionName


class PlainFormat(ApiModel):
    """Ask for text, or for any JSON object."""

    type: Literal["text", "json_object"]


class SchemaFormat(ApiModel):
    """Ask for JSON of a schema."""

    type: Literal["json_schema"]
    name: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    schema_: JsonObject = Field(alias="schema")
    description: str | None = None
    strict: bool | None = None


class TextOptions(ApiModel):
    """Hold the format of the text."""

    format: Annotated[PlainFormat | SchemaFormat, Field(discriminator="type")] | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class ReasoningOptions(ApiModel):
    """Hold the effort of reasoning."""

    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None


class StreamOptions(ApiModel):
    """Accept what has no effect here: streams are not padded."""

    include_obfuscation: bool | None = None


class ConversationId(ApiModel):
    """Name a conversation."""

    id: ItemId


class ResponseOptions(RequestModel):
    """Hold what a response and a count of its tokens have in common."""

    model: str | None = None
    input: Input | None = None
    previous_response_id: ItemId | None = None
    conversation: ItemId | ConversationId | None = None
    instructions: str | None = None
    tools: list[FunctionTool] | None = Field(default=None, max_length=128)
    tool_choice: Literal["none", "auto", "required"] | FunctionChoice | None = None
    parallel_tool_calls: bool | None = None
    reasoning: ReasoningOptions | None = None
    text: TextOptions | None = None
    truncation: Literal["auto", "disabled"] | None = None


class ResponseRequest(ResponseOptions):
    """Ask for a response."""

    stream: bool | None = None
    stream_options: StreamOptions | None = None
    background: bool | None = None
    store: bool | None = None
    include: list[Literal["message.output_text.logprobs", "reasoning.encrypted_content"]] | None = (
        None
    )
    metadata: Metadata | None = None
    client_metadata: dict[str, str] | None = Field(
        default=None,
        max_length=64,
        description="Facts of a coding agent about itself; they are not kept.",
    )
    temperature: Temperature | None = None
    top_p: Probability | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    max_output_tokens: TokenCount | None = None
    max_tool_calls: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    seed: Seed | None = None
    stop: StopStrings | None = None
    safety_identifier: ShortText | None = None
    prompt_cache_key: ShortText | None = None
    prompt_cache_retention: Literal["in_memory", "in-memory", "24h"] | None = None
    user: str | None = None
    service_tier: Literal["auto", "default", "flex", "priority"] | None = None
    streamingllm: StreamingOptions | None = None


class SocketRequest(ResponseRequest):
    """Ask for a response over a WebSocket."""

    type: Literal["response.create"]
    stream: Literal[True] | None = None
    background: Literal[False] | None = None


class CompactRequest(RequestModel):
    """Ask for a place from which a later input goes on."""

    model: str
    input: Input | None = None
    previous_response_id: ItemId | None = None
    instructions: str | None = None
    prompt_cache_key: ShortText | None = None
