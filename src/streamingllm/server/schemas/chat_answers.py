"""Answers of /v1/chat/completions."""

from __future__ import annotations

from typing import Literal

from streamingllm.server.schemas.common import AnswerModel, Forgetting

ChatFinishReason = Literal["stop", "length", "tool_calls"]


class TopLogprob(AnswerModel):
    """Report one of the most probable tokens."""

    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogprob(TopLogprob):
    """Report a generated token, and those that were most probable in its place."""

    top_logprobs: list[TopLogprob]


class ChoiceLogprobs(AnswerModel):
    """Report the tokens of an answer's text."""

    content: list[TokenLogprob] | None
    refusal: list[TokenLogprob] | None = None


class CalledFunctionAnswer(AnswerModel):
    """Name a function and its arguments, a JSON text."""

    name: str
    arguments: str


class ToolCallAnswer(AnswerModel):
    """Ask for a call."""

    id: str
    type: Literal["function"]
    function: CalledFunctionAnswer


class ChatAnswerMessage(AnswerModel):
    """Hold the message that answers."""

    role: Literal["assistant"]
    content: str | None
    refusal: str | None
    annotations: list[dict[str, object]]
    reasoning_content: str | None = None
    tool_calls: list[ToolCallAnswer] | None = None


class ChatChoice(AnswerModel):
    """Hold one sample."""

    index: int
    message: ChatAnswerMessage
    logprobs: ChoiceLogprobs | None
    finish_reason: ChatFinishReason


class PromptTokensDetails(AnswerModel):
    """Split the tokens that an answer built on."""

    cached_tokens: int
    audio_tokens: int


class CompletionTokensDetails(AnswerModel):
    """Split the tokens of an answer."""

    reasoning_tokens: int
    audio_tokens: int
    accepted_prediction_tokens: int
    rejected_prediction_tokens: int


class CompletionUsage(AnswerModel):
    """Count the tokens of a turn; `evicted_tokens` counts those of the session."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails
    evicted_tokens: int


class ChatCompletion(AnswerModel):
    """Hold a whole answer."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: CompletionUsage
    service_tier: Literal["default"]
    system_fingerprint: str
    streamingllm: Forgetting


class FunctionDelta(AnswerModel):
    """Go on with a call; the first one names the function."""

    name: str | None = None
    arguments: str


class ToolCallDeltaAnswer(AnswerModel):
    """Go on with the call of a number."""

    index: int
    id: str | None = None
    type: Literal["function"] | None = None
    function: FunctionDelta


class ChatDelta(AnswerModel):
    """Go on with a message."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[ToolCallDeltaAnswer] | None = None


class ChatChunkChoice(AnswerModel):
    """Go on with a sample."""

    index: int
    delta: ChatDelta
    logprobs: ChoiceLogprobs | None
    finish_reason: ChatFinishReason | None


class ChatCompletionChunk(AnswerModel):
    """Hold one event of a stream; the last one says what is visible."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChatChunkChoice]
    usage: CompletionUsage | None = None
    service_tier: Literal["default"]
    system_fingerprint: str
    streamingllm: Forgetting | None = None
