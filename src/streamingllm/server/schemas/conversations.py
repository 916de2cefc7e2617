"""Requests of /v1/conversations."""

from __future__ import annotations

from pydantic import Field

from streamingllm.server.schemas.common import Metadata, RequestModel
from streamingllm.server.schemas.responses import Item


class CreateConversation(RequestModel):
    """Begin a conversation."""

    items: list[Item] | None = Field(default=None, max_length=20)
    metadata: Metadata | None = None


class UpdateConversation(RequestModel):
    """Replace the metadata of a conversation."""

    metadata: Metadata


class CreateItems(RequestModel):
    """Append items to a conversation."""

    items: list[Item] = Field(min_length=1, max_length=20)
