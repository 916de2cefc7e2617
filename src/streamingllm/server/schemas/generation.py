"""Fields that requests of chat completions and completions share."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from streamingllm.server.schemas.common import (
    ApiModel,
    JsonObject,
    LogitBias,
    Penalty,
    Probability,
    RepetitionPenalty,
    RequestModel,
    SampleCount,
    Seed,
    StopStrings,
    StreamingOptions,
    Temperature,
    TopK,
)


class StreamOptions(ApiModel):
    """Choose what a stream carries in addition to the answer."""

    include_usage: bool | None = None
    include_obfuscation: Literal[False] | None = None


class JsonSchemaFormat(ApiModel):
    """Hold a JSON schema that the answer follows."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_.-]{1,64}$")]
    description: str | None = None
    schema_: JsonObject | None = Field(default=None, alias="schema")
    strict: bool | None = None


class ResponseFormat(ApiModel):
    """Choose plain text, any JSON object, or JSON of a schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = None

    @model_validator(mode="after")
    def _check_schema(self) -> ResponseFormat:
        has_schema = self.json_schema is not None and self.json_schema.schema_ is not None
        if (self.type == "json_schema") != has_schema:
            raise ValueError(
                f"type={self.type!r} does not go with this json_schema; send json_schema.schema "
                "with type='json_schema' only"
            )
        return self


class GenerationRequest(RequestModel):
    """Choose the model, how tokens are chosen, and how the answer comes."""

    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Temperature | None = None
    top_p: Probability | None = None
    top_k: TopK | None = None
    min_p: Probability | None = None
    repetition_penalty: RepetitionPenalty | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    logit_bias: LogitBias | None = None
    seed: Seed | None = None
    stop: StopStrings | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool | None = None
    n: SampleCount | None = None
    response_format: ResponseFormat | None = None
    user: str | None = None
    streamingllm: StreamingOptions | None = None

    @model_validator(mode="after")
    def _check_stream_options(self) -> GenerationRequest:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options need stream=true; set it or leave them out")
        return self

    @property
    def includes_usage(self) -> bool:
        """Return whether a stream ends with the usage."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @property
    def options(self) -> StreamingOptions:
        """Return our own settings."""
        return self.streamingllm or StreamingOptions()
