"""Answers of /v1/messages."""

from __future__ import annotations

from typing import Any, Literal

from streamingllm.server.schemas.common import AnswerModel, Forgetting


class AnthropicUsage(AnswerModel):
    """Count the tokens of a turn; input tokens are those that had to be fed."""

    input_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    output_tokens: int
    evicted_tokens: int


class AnswerBlock(AnswerModel):
    """Hold a text, reasoning, or a tool call."""

    type: Literal["text", "thinking", "tool_use"]
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    id: str | None = None
    name: str | None = None
    input: dict[str, Any] | None = None


class AnthropicMessage(AnswerModel):
    """Hold a whole answer."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[AnswerBlock]
    stop_reason: Literal["end_turn", "max_tokens", "stop_sequence", "tool_use"]
    stop_sequence: str | None
    usage: AnthropicUsage
    streamingllm: Forgetting


class TokenCountAnswer(AnswerModel):
    """Count tokens."""

    input_tokens: int


class AnthropicErrorDetail(AnswerModel):
    """Say what was wrong with a request."""

    type: str
    message: str


class AnthropicError(AnswerModel):
    """Wrap an error as Anthropic's API does."""

    type: Literal["error"]
    error: AnthropicErrorDetail
    request_id: str | None = None
