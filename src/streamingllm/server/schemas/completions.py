"""Requests and answers of /v1/completions."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from streamingllm.server.schemas.chat_answers import CompletionUsage
from streamingllm.server.schemas.common import AnswerModel, Forgetting
from streamingllm.server.schemas.generation import GenerationRequest

MAX_PROMPTS = 64
_SOME = Field(min_length=1, max_length=MAX_PROMPTS)
_TokenIds = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
Prompt = str | _TokenIds


def _as_prompts(value: Any) -> Any:
    """Return a list of prompts; one text, or the ids of one, is a list of one."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and value and all(_is_integer(item) for item in value):
        return [value]
    return value


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


Prompts = Annotated[
    list[Prompt],
    BeforeValidator(
        _as_prompts,
        json_schema_input_type=str
        | _TokenIds
        | Annotated[list[str], _SOME]
        | Annotated[list[_TokenIds], _SOME],
    ),
    _SOME,
]
"""A text, texts, token ids, or lists of token ids."""


class CompletionRequest(GenerationRequest):
    """Ask how texts go on."""

    prompt: Prompts
    max_tokens: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    best_of: Literal[1] | None = None
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    echo: bool | None = None

    @model_validator(mode="after")
    def _check_pairs(self) -> CompletionRequest:
        if self.echo and self.logprobs is not None:
            raise ValueError(
                f"logprobs={self.logprobs} does not go with echo=true, because those of a prompt "
                "are not computed; leave one out"
            )
        if self.options.session_id or self.options.eviction:
            raise ValueError(
                "streamingllm.session_id and streamingllm.eviction have no effect on a text "
                "without a session; use /v1/chat/completions"
            )
        return self


class CompletionLogprobs(AnswerModel):
    """Report the tokens of a text."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class CompletionChoice(AnswerModel):
    """Hold one sample of one prompt."""

    text: str
    index: int
    logprobs: CompletionLogprobs | None
    finish_reason: Literal["stop", "length"] | None


class Completion(AnswerModel):
    """Hold texts that go on, or an event of a stream of them."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: CompletionUsage | None = None
    system_fingerprint: str
    streamingllm: Forgetting | None = None
