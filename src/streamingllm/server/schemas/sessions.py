"""Schemas of `/v1/sessions`: sessions of our own, with what the model still sees of them."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from streamingllm.server.forgetting import view_fields
from streamingllm.server.schemas.common import (
    AnswerModel,
    ApiModel,
    Forgetting,
    JsonObject,
    Metadata,
    RequestModel,
)
from streamingllm.server.schemas.facts import FactObject
from streamingllm.sessions.session_types import SessionDetail, SessionInfo, SessionPage
from streamingllm.sessions.transcript import ContentPart, Message, ToolCall
from streamingllm.sessions.turn import SessionView

Visibility = Literal["visible", "partly", "forgotten"]


class CallBody(ApiModel):
    """Hold a call of a function, in a message of the assistant."""

    id: str
    name: str
    arguments: str = Field(description="JSON, as the model wrote it.")


class MessageBody(ApiModel):
    """Hold a message to append."""

    role: Literal["user", "assistant", "system", "tool"]
    text: str = ""
    tool_calls: list[CallBody] = Field(default_factory=list, max_length=64)
    tool_call_id: str | None = None
    name: str | None = None

    def to_message(self) -> Message:
        """Return the message of a transcript."""
        return Message(
            self.role,
            (ContentPart(self.text),) if self.text else (),
            tool_calls=tuple(ToolCall(c.id, c.name, c.arguments) for c in self.tool_calls),
            tool_call_id=self.tool_call_id,
            name=self.name,
        )


class CreateSession(RequestModel):
    """Describe a session to create; its messages are fed with the first turn."""

    id: str | None = Field(None, min_length=1, max_length=256)
    system_prompt: str | None = Field(None, description="Pinned; null takes the operator's.")
    tools: list[JsonObject] | None = Field(None, max_length=128)
    eviction: Literal["token", "turn"] | None = None
    messages: list[MessageBody] = Field(default_factory=list, max_length=10_000)
    metadata: Metadata = Field(default_factory=dict)


class UpdateSession(RequestModel):
    """Replace the metadata of a session; the page shows its `title`."""

    metadata: Metadata


class AppendMessages(RequestModel):
    """Hold messages to append without an answer."""

    messages: list[MessageBody] = Field(min_length=1, max_length=10_000)


class RewindSession(RequestModel):
    """Say how far a session goes back; pass one of the fields."""

    message_id: str | None = Field(None, description="The last message that stays.")
    num_turns: int | None = Field(None, ge=0, description="Turns to take back.")


class ForkSession(RequestModel):
    """Say where a branch begins."""

    message_id: str | None = Field(None, description="The last shared message; null shares all.")


class ForgetMessages(RequestModel):
    """Name messages to erase, from the session and its branches."""

    message_ids: list[str] = Field(min_length=1, max_length=1000)


class ListParameters(BaseModel):
    """Select sessions."""

    model_config = ConfigDict(extra="forbid")  # not strict: the numbers of an address are text

    limit: int = Field(20, ge=1, le=100)
    after: str | None = Field(None, description="The `next` of the page before.")
    query: str | None = Field(None, description="Words that a message of the session contains.")


class MessageObject(AnswerModel):
    """Show a message with its place in the stream."""

    role: str
    text: str
    tool_calls: list[CallBody]
    tool_call_id: str | None
    name: str | None
    id: str
    first_token: int = Field(description="Stream position of its first token.")
    num_tokens: int = Field(description="0 until it is fed.")
    visibility: Visibility = Field(description="How much of it the model sees.")

    @classmethod
    def of(cls, message: Message, view: SessionView) -> Self:
        """Show a message of a transcript."""
        return cls(
            role=message.role,
            text=message.text,
            tool_calls=[
                CallBody(id=c.id, name=c.name, arguments=c.arguments) for c in message.tool_calls
            ],
            tool_call_id=message.tool_call_id,
            name=message.name,
            id=message.id,
            first_token=message.first,
            num_tokens=message.stop - message.first,
            visibility=visibility_of(message, view),
        )


class SessionObject(AnswerModel):
    """Show a session as it stands in a list."""

    object: Literal["session"] = "session"
    id: str
    created_at: int = Field(description="Seconds since 1970.")
    updated_at: int = Field(description="Seconds since 1970.")
    num_messages: int
    seen_tokens: int
    metadata: JsonObject
    parent_id: str | None = Field(description="The session that it is a branch of.")
    num_shared_messages: int = Field(description="First messages that it shares with that one.")

    @classmethod
    def of(cls, info: SessionInfo) -> Self:
        """Show a session of a list."""
        return cls.model_validate(_info_fields(info))


class SessionDetailObject(SessionObject):
    """Show a session with its messages."""

    streamingllm: Forgetting
    cache_size: int = Field(description="Tokens that can be visible at once.")
    system_prompt: str
    facts: list[FactObject] = Field(description="Pinned after the system prompt.")
    tools: list[JsonObject]
    eviction: Literal["token", "turn"]
    tier: Literal["device", "host", "disk", "tail"] = Field(description="Where its state is.")
    is_running: bool = Field(description="Whether it answers now.")
    messages: list[MessageObject]
    branches: list[SessionObject] = Field(description="Sessions of the same family.")

    @classmethod
    def of_detail(cls, detail: SessionDetail, cache_size: int) -> Self:
        """Show one session."""
        return cls(
            **_info_fields(detail.info),
            streamingllm=Forgetting.model_validate(view_fields(detail.view)),
            cache_size=cache_size,
            system_prompt=detail.system_prompt,
            facts=[FactObject.of(fact) for fact in detail.facts],
            tools=[dict(tool) for tool in detail.tools],
            eviction=detail.eviction,
            tier=detail.tier,
            is_running=detail.is_running,
            messages=[MessageObject.of(message, detail.view) for message in detail.messages],
            branches=[SessionObject.of(info) for info in detail.branches],
        )


class SessionList(AnswerModel):
    """Show a page of sessions, those that changed last first."""

    object: Literal["list"] = "list"
    data: list[SessionObject]
    has_more: bool
    next: str | None = Field(description="Pass it as `after`; null on the last page.")

    @classmethod
    def of(cls, page: SessionPage) -> Self:
        """Show a page."""
        data = [SessionObject.of(info) for info in page.sessions]
        return cls(data=data, has_more=page.has_more, next=page.next)


class MessageList(AnswerModel):
    """Show messages that were appended."""

    object: Literal["list"] = "list"
    data: list[MessageObject]


class SessionStopped(AnswerModel):
    """Say whether an answer was running."""

    object: Literal["session.stopped"] = "session.stopped"
    id: str
    stopped: bool


class SessionDeleted(AnswerModel):
    """Report that a session is gone from the disk and every cache."""

    object: Literal["session.deleted"] = "session.deleted"
    id: str
    deleted: Literal[True] = True


def visibility_of(message: Message, view: SessionView) -> Visibility:
    """Tell how much of a message the model sees; forgotten tokens follow the pinned prefix."""
    edge = view.num_pinned_tokens + view.num_forgotten_tokens
    is_pinned = message.stop <= view.num_pinned_tokens
    if not view.num_forgotten_tokens or is_pinned or message.first >= edge:
        return "visible"
    is_cut = message.stop > edge or message.first < view.num_pinned_tokens
    return "partly" if is_cut else "forgotten"


def _info_fields(info: SessionInfo) -> dict[str, Any]:
    return {
        "id": info.id,
        "created_at": int(info.created_seconds),
        "updated_at": int(info.updated_seconds),
        "num_messages": info.num_messages,
        "seen_tokens": info.num_tokens,
        "metadata": dict(info.metadata),
        "parent_id": info.parent_id,
        "num_shared_messages": info.num_shared_messages,
    }
