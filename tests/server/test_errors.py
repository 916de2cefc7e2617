"""Errors become answers that say what was wrong."""

from __future__ import annotations

import pytest
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from streamingllm.errors import (
    CapacityError,
    ContextLengthError,
    InputError,
    SessionConflictError,
    SessionNotFoundError,
    SnapshotError,
)
from streamingllm.server.errors import ApiError, api_error_of, error_body
from streamingllm.server.schemas.chat import ChatRequest


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (InputError("a"), 400, None),
        (ContextLengthError("a"), 400, "context_length_exceeded"),
        (SessionNotFoundError("a"), 404, "not_found"),
        (SessionConflictError("a"), 409, "conflict"),
        (CapacityError("a"), 429, "rate_limit_exceeded"),
        (SnapshotError("secret"), 500, "internal_error"),
        (RuntimeError("secret"), 500, "internal_error"),
    ],
)
def test_each_error_has_its_status(error: Exception, status: int, code: str | None) -> None:
    found = api_error_of(error)
    assert (found.status, found.code) == (status, code)
    assert "secret" not in str(found)


def test_both_shapes_name_the_field() -> None:
    error = ApiError(400, "is wrong", param="top_p", code="invalid_value")
    assert error_body("openai", error) == {
        "error": {
            "message": "is wrong",
            "type": "invalid_request_error",
            "param": "top_p",
            "code": "invalid_value",
        }
    }
    assert error_body("anthropic", error, "req_1") == {
        "type": "error",
        "error": {"type": "invalid_request_error", "message": "top_p: is wrong"},
        "request_id": "req_1",
    }


def test_the_unsupported_field_comes_before_other_problems() -> None:
    body = {"messages": [{"role": "user", "content": 3}], "frobnicate": 1}
    with pytest.raises(ValidationError) as wrong:
        ChatRequest.model_validate(body)
    found = api_error_of(RequestValidationError(wrong.value.errors(), body=body))
    assert found.param == "frobnicate"
    assert "not supported" in str(found)


def test_kinds_of_a_union_are_no_part_of_a_path() -> None:
    body = {"messages": [{"role": "user", "content": [{"type": "text", "text": 3}]}]}
    with pytest.raises(ValidationError) as wrong:
        ChatRequest.model_validate(body)
    found = api_error_of(RequestValidationError(wrong.value.errors(), body=body))
    assert found.param == "messages.0.content.0.text"
