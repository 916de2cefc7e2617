"""Frames of a client that feeds a stream."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from streamingllm.server.schemas.common import ApiModel, Temperature, TokenCount


class Feed(ApiModel):
    """Append text to the feed."""

    type: Literal["feed"]
    text: Annotated[str, Field(min_length=1)]


class Ask(ApiModel):
    """Ask about what was fed; the feed goes on meanwhile."""

    type: Literal["ask"]
    question: Annotated[str, Field(min_length=1)]
    id: Annotated[str, Field(max_length=128)] = ""
    max_tokens: TokenCount | None = None
    temperature: Temperature | None = None


class Cancel(ApiModel):
    """Stop the answer to a question."""

    type: Literal["cancel"]
    id: Annotated[str, Field(max_length=128)] = ""


class Inspect(ApiModel):
    """Ask what the model sees."""

    type: Literal["inspect"]


Frame = Annotated[Feed | Ask | Cancel | Inspect, Field(discriminator="type")]
FRAME: TypeAdapter[Any] = TypeAdapter(Frame)
