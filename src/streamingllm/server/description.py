"""Describe the API at `/openapi.json`: answers that are sent, their shapes, keys and headers."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import FastAPI, Header

from streamingllm.server.schemas.common import AnswerModel, ErrorBody

Answers = dict[int | str, dict[str, Any]]
_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
}
_VALIDATION_SCHEMAS = ("HTTPValidationError", "ValidationError")

EVENT_STREAM = {"text/event-stream": {"schema": {"type": "string"}}}
TURN_HEADERS = {
    "x-session-id": {"description": "Session of the answer.", "schema": {"type": "string"}},
    "x-streamingllm-visible": {
        "description": "Tokens seen, visible and forgotten; the first message visible in full.",
        "schema": {"type": "string"},
    },
}


class DescribedApi(FastAPI):
    """Serve a description that is true.

    FastAPI describes an answer of 422 for each route with fields. Here a wrong field is answered
    with 400 in the shape of the API, and no route sends 422.

    Source: https://fastapi.tiangolo.com/how-to/extending-openapi/
    """

    needs_key = False

    def openapi(self) -> dict[str, Any]:
        """Return the document."""
        if self.openapi_schema is None:
            document = super().openapi()
            components = document["components"]
            for name in _VALIDATION_SCHEMAS:
                components["schemas"].pop(name, None)
            keys: list[dict[str, list[str]]] = [{name: []} for name in _SCHEMES]
            components["securitySchemes"] = _SCHEMES
            document["security"] = keys if self.needs_key else [*keys, {}]
            for path, methods in document["paths"].items():
                for operation in methods.values():
                    operation["responses"].pop("422", None)
                    if path in ("/health", "/ready"):
                        operation["security"] = []
        return self.openapi_schema or {}


def refusals(shape: type[AnswerModel] = ErrorBody) -> Answers:
    """Describe the answers to requests that reach no route.

    Args:
        shape: of an error.
    """
    return {
        status: {"model": shape, "description": description}
        for status, description in (
            (401, "The key is missing or wrong."),
            (403, "The host name or the origin of the request is not allowed."),
            (413, "The body is longer than `max_body_bytes`."),
            (429, "Too many requests or turns; see Retry-After."),
            (503, "The server is draining; see Retry-After."),
        )
    }


def turn_headers(
    x_session_id: Annotated[
        str | None, Header(description="Session to go on with; it is made if it is missing.")
    ] = None,
    x_openwebui_chat_id: Annotated[
        str | None, Header(description="Chat of a client that sends its whole history.")
    ] = None,
    x_chat_id: Annotated[str | None, Header(description="As `x-openwebui-chat-id`.")] = None,
    x_conversation_id: Annotated[
        str | None, Header(description="As `x-openwebui-chat-id`.")
    ] = None,
    x_openwebui_task: Annotated[
        str | None, Header(description="Marks a side task, which leaves its session as it is.")
    ] = None,
    x_streamingllm_events: Annotated[
        str | None,
        Header(description="`visibility` adds events `streamingllm.visibility` to a stream."),
    ] = None,
) -> None:
    """Describe the headers of a turn; `identity_of` reads them."""
