"""Parts of requests and answers that several APIs share."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from streamingllm.sessions.plain_json import check_json


class ApiModel(BaseModel):
    """Hold a part of a request; a field that is not here is refused by its name.

    Clients send fields that are null or empty without meaning them, so those are left out first.
    """

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _leave_out_empty_fields(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        names = {info.alias or name for name, info in cls.model_fields.items()}
        return {
            name: value
            for name, value in data.items()
            if name in names or not (value is None or value == [] or value == {})
        }


class AnswerModel(BaseModel):
    """Document a part of an answer."""

    model_config = ConfigDict(extra="allow")


class RequestModel(ApiModel):
    """Hold the body of a request, all of which can be written as JSON again."""

    @model_validator(mode="before")
    @classmethod
    def _check_json(cls, data: Any) -> Any:
        if isinstance(data, dict):
            for name, value in data.items():
                check_json(name, value)
        return data


JsonObject = dict[str, Any]
"""Any object of JSON."""

Metadata = Annotated[
    dict[
        Annotated[str, Field(max_length=64)],
        Annotated[str, Field(max_length=512)],
    ],
    Field(max_length=16),
]
"""Up to 16 names and texts that a client attaches."""

FunctionName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{1,128}$")]

_StopString = Annotated[str, Field(min_length=1, max_length=1024)]
StopStrings = Annotated[
    list[_StopString],
    BeforeValidator(
        lambda value: [value] if isinstance(value, str) else value,
        json_schema_input_type=_StopString | Annotated[list[_StopString], Field(max_length=16)],
    ),
    Field(max_length=16),
]
"""One stop string, or up to 16."""

Temperature = Annotated[float, Field(ge=0, le=2)]
Probability = Annotated[float, Field(ge=0, le=1)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
RepetitionPenalty = Annotated[float, Field(gt=0, le=10)]
TopK = Annotated[int, Field(ge=0, le=2**31)]
Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]
TokenCount = Annotated[int, Field(ge=1, lt=2**31)]
SampleCount = Annotated[int, Field(ge=1, le=128)]
LogitBias = Annotated[
    dict[
        Annotated[str, Field(pattern=r"^[0-9]{1,9}$")],
        Annotated[float, Field(ge=-100, le=100)],
    ],
    Field(max_length=1024),
]


class TextPart(ApiModel):
    """Hold one text of a message."""

    type: Literal["text"]
    text: str

    @model_validator(mode="before")
    @classmethod
    def _refuse_other_types(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("type"), str) and data["type"] != "text":
            raise ValueError(
                f"type={data['type'][:40]!r} of a content part is not supported; this model reads "
                "text only, so send type='text'"
            )
        return data


def as_parts(value: Any) -> Any:
    """Return a text as a list of one part; anything else is left to be checked."""
    return [{"type": "text", "text": value}] if isinstance(value, str) else value


TextContent = Annotated[
    list[TextPart], BeforeValidator(as_parts, json_schema_input_type=str | list[TextPart])
]
"""A text, or a list of parts that are texts."""


class StreamingOptions(ApiModel):
    """Hold our own settings of a request.

    Args:
        session_id: session to go on with; made if it is missing.
        eviction: evict by token or by whole turns, from now on.
        truncation: "disabled" refuses what does not fit, instead of evicting.
    """

    session_id: str | None = None
    eviction: Literal["token", "turn"] | None = None
    truncation: Literal["auto", "disabled"] = "auto"


class RecalledPart(AnswerModel):
    """Hold a part of an older message that a memory put back into the window."""

    message_id: str
    position: int = Field(description="Stream position of the first token of its message.")
    text: str
    score: float
    speaker: str
    said_at: float = Field(description="Seconds since 1970.")
    words: list[str] = Field(description="Words of the question that it has too, stemmed.")


class SearchMade(AnswerModel):
    """Show a search of the memory that the model made while it answered."""

    query: str
    recalled: list[RecalledPart]


class EvictedToolResult(AnswerModel):
    """Name the result of a tool that has left the window; a placeholder says so to the model."""

    message_id: str
    tool: str = Field(description="Name of the function, empty if no call names it.")
    tokens: int


class Forgetting(AnswerModel):
    """Say what the model sees of a session and what it has forgotten."""

    session_id: str
    seen_tokens: int
    visible_tokens: int
    forgotten_tokens: int
    pinned_tokens: int
    first_visible_message: int | None = Field(
        description="Number of the first message that is visible in full, from 0."
    )
    first_visible_message_id: str | None = None
    notices: list[str] = Field(
        default_factory=list, description="Texts that the operator lets every client show."
    )
    recalled: list[RecalledPart] | None = Field(
        default=None, description="What a memory put back before the last message, the best first."
    )
    unknown_words: list[str] | None = Field(
        default=None, description="Words of a question that nobody has said in the session."
    )
    not_found: bool | None = Field(
        default=None,
        description="Whether a question is about something that is neither visible nor found.",
    )
    searches: list[SearchMade] | None = Field(
        default=None, description="Searches of the memory that the model made by its tool."
    )
    evicted_results: list[EvictedToolResult] | None = Field(
        default=None, description="Results of tools that left the window since the last turn."
    )
    message_id: str | None = Field(default=None, description="Id of the answer's message.")
    ignored_fields: dict[str, str] | None = Field(
        default=None, description="Fields of the request that had no effect, with the reasons."
    )


class ErrorDetail(AnswerModel):
    """Say what was wrong with a request."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorBody(AnswerModel):
    """Wrap an error as the OpenAI API does."""

    error: ErrorDetail
