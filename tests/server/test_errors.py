"""Errors become answers that say what was wrong."""

from __future__ import annotations

from typing import Any

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
from tests.server.requests import Api


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


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"model": "tiny", "input": 3}, "input"),
        ({"model": "tiny", "input": {}}, "input"),
        ({"model": "tiny", "input": [3]}, "input.0"),
        ({"model": "tiny", "input": [{"type": "message", "role": "user"}]}, "input.0.content"),
        ({"input": "x"}, "model"),
    ],
)
def test_kinds_of_a_union_of_a_body_are_no_part_of_a_path(api: Api, body: Any, param: str) -> None:
    error = api.post("/v1/responses/compact", body).json()["error"]
    assert error["param"] == param
    assert "[" not in error["message"]


@pytest.mark.parametrize("body", [b"{", b"\xff\xfe", b'{"messages": ' + b"[" * 100_000])
def test_a_body_that_is_no_json_is_refused(api: Api, body: bytes) -> None:
    response = api.send("/v1/chat/completions", body)
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"


def test_a_field_without_a_name_is_refused(api: Api) -> None:
    response = api.post("/v1/sessions", {"": 1})
    assert response.status_code == 400
    assert response.json()["error"]["message"].startswith("'' is not supported")


def test_a_field_that_is_no_text_and_nested_too_deep_is_refused(api: Api) -> None:
    deep = "[" * 100 + "]" * 100
    response = api.send("/v1/sessions", b'{"\\ud800": ' + deep.encode() + b"}")
    assert response.status_code == 400
    assert "nested deeper" in response.json()["error"]["message"]


@pytest.mark.parametrize(("path", "status"), [("/nowhere", 404), ("/v1/messages", 405)])
def test_paths_that_are_not_there_have_errors_of_the_api_too(
    api: Api, path: str, status: int
) -> None:
    response = api.get(path)
    assert response.status_code == status
    assert response.json()["error"]["type"]
