"""Events that a client of the realtime API sends; text only."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from streamingllm.server.schemas.common import ApiModel, FunctionName, JsonObject, Metadata

ItemId = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:@+=-]{1,64}$")]


class FunctionTool(ApiModel):
    """Describe a function that the model may call."""

    type: Literal["function"]
    name: FunctionName
    description: str | None = None
    parameters: JsonObject | None = None


class NamedFunction(ApiModel):
    """Name the function that must be called."""

    type: Literal["function"]
    name: FunctionName


class InputText(ApiModel):
    """Hold a text of an item."""

    type: Literal["input_text", "output_text", "text"]
    text: str


class MessageItem(ApiModel):
    """Hold a message."""

    type: Literal["message"]
    role: Literal["system", "user", "assistant"]
    content: list[InputText]
    id: ItemId | None = None
    object: Literal["realtime.item"] | None = None
    status: Literal["completed", "incomplete", "in_progress"] | None = None


class FunctionCallItem(ApiModel):
    """Hold a call that an answer asked for."""

    type: Literal["function_call"]
    name: FunctionName
    arguments: str
    call_id: str | None = None
    id: ItemId | None = None
    object: Literal["realtime.item"] | None = None
    status: Literal["completed", "incomplete", "in_progress"] | None = None


class FunctionCallOutputItem(ApiModel):
    """Hold the result of a call."""

    type: Literal["function_call_output"]
    call_id: str
    output: str
    id: ItemId | None = None
    object: Literal["realtime.item"] | None = None
    status: Literal["completed", "incomplete", "in_progress"] | None = None


Item = Annotated[
    MessageItem | FunctionCallItem | FunctionCallOutputItem, Field(discriminator="type")
]


class SessionFields(ApiModel):
    """Hold the settings of a session or of one response."""

    instructions: str | None = None
    output_modalities: list[Literal["text"]] | None = None
    max_output_tokens: Annotated[int, Field(ge=1, lt=2**31)] | Literal["inf"] | None = None
    tools: list[FunctionTool] | None = None
    tool_choice: Literal["auto", "none", "required"] | NamedFunction | None = None
    parallel_tool_calls: bool | None = None


class SessionSettings(SessionFields):
    """Hold the settings of a session."""

    type: Literal["realtime"]
    model: str | None = None
    truncation: Literal["auto", "disabled"] | None = None


class ResponseSettings(SessionFields):
    """Hold the settings of one response."""

    conversation: Literal["auto", "none"] | None = None
    input: list[Item] | None = None
    metadata: Metadata | None = None


class ClientEvent(ApiModel):
    """Hold what all events have."""

    event_id: Annotated[str, Field(max_length=512)] | None = None


class SessionUpdate(ClientEvent):
    """Change the settings of the session."""

    type: Literal["session.update"]
    session: SessionSettings


class ItemCreate(ClientEvent):
    """Append an item."""

    type: Literal["conversation.item.create"]
    item: Item
    previous_item_id: str | None = None


class ItemRetrieve(ClientEvent):
    """Ask for an item."""

    type: Literal["conversation.item.retrieve"]
    item_id: str


class ItemDelete(ClientEvent):
    """Delete an item."""

    type: Literal["conversation.item.delete"]
    item_id: str


class ResponseCreate(ClientEvent):
    """Ask for an answer."""

    type: Literal["response.create"]
    response: ResponseSettings = Field(default_factory=ResponseSettings)


class ResponseCancel(ClientEvent):
    """Stop the answer."""

    type: Literal["response.cancel"]
    response_id: str | None = None


Event = Annotated[
    SessionUpdate | ItemCreate | ItemRetrieve | ItemDelete | ResponseCreate | ResponseCancel,
    Field(discriminator="type"),
]
EVENT: TypeAdapter[Any] = TypeAdapter(Event)
