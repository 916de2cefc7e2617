"""Answers of /v1/models."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from streamingllm.server.schemas.common import AnswerModel


class ServedModel(AnswerModel):
    """Describe a model as the OpenAI API does, with what its cache holds."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "streamingllm"
    aliases: list[str] = Field(default_factory=list)
    cache_size: int = Field(description="Tokens that an answer can see; sessions have no end.")
    trained_length: int | None = None


class ModelList(AnswerModel):
    """List the models that are served."""

    object: Literal["list"] = "list"
    data: list[ServedModel]


class AnthropicModel(AnswerModel):
    """Describe a model as Anthropic's API does."""

    type: Literal["model"]
    id: str
    display_name: str
    created_at: str


class AnthropicModelList(AnswerModel):
    """List the models that are served as Anthropic's API does."""

    data: list[AnthropicModel]
    has_more: bool
    first_id: str
    last_id: str
