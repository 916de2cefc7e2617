"""Turn errors into answers in the shape of each API."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from streamingllm.errors import (
    CapacityError,
    ConfigError,
    ContextLengthError,
    FactNotFoundError,
    InputError,
    RewindError,
    SessionConflictError,
    SessionNotFoundError,
    StreamingLLMError,
    UnsupportedFeatureError,
    first_line,
)

Api = Literal["openai", "anthropic"]
RETRY_AFTER_SECONDS = "1"
_CLIENT_CLOSED_REQUEST = 499
logger = logging.getLogger(__name__)
_ANTHROPIC_PATH = "/v1/messages"
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}
_STATUSES: tuple[tuple[type[StreamingLLMError], int, str | None], ...] = (
    (ContextLengthError, 400, "context_length_exceeded"),
    (SessionNotFoundError, 404, "not_found"),
    (FactNotFoundError, 404, "not_found"),
    (SessionConflictError, 409, "conflict"),
    (CapacityError, 429, "rate_limit_exceeded"),
    (InputError, 400, None),
    (ConfigError, 400, None),
    (RewindError, 400, None),
    (UnsupportedFeatureError, 400, "unsupported"),
)


class ApiError(Exception):
    """Refuse a request.

    Args:
        status: of HTTP.
        message: what is wrong, and what to do.
        code: for programs.
        param: field that is wrong.
        type: of error; None for that of the status.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        type: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param
        self.type = type or _TYPES.get(status, "api_error")


def api_error_of(error: Exception) -> ApiError:
    """Return what a client is told of an error; an unexpected one tells nothing of itself."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, RequestValidationError):
        return _of_validation(error.errors(), error.body)
    if isinstance(error, ValidationError):
        return _of_validation(error.errors())
    if isinstance(error, HTTPException):
        return ApiError(error.status_code, str(error.detail))
    for kind, status, code in _STATUSES:
        if isinstance(error, kind):
            return ApiError(status, first_line(error), code=code)
    return ApiError(500, "The server failed; its log has the reason.", code="internal_error")


def error_body(api: Api, error: ApiError, request_id: str | None = None) -> dict[str, Any]:
    """Return an error in the shape of an API."""
    if api == "anthropic":
        detail = {"type": error.type, "message": _with_param(error)}
        return {"type": "error", "error": detail, "request_id": request_id}
    return {
        "error": {
            "message": str(error),
            "type": error.type,
            "param": error.param,
            "code": error.code,
        }
    }


def add_error_handlers(app: FastAPI) -> None:
    """Let an app answer every error in the shape of the API that a path belongs to."""
    for kind in (ApiError, StreamingLLMError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, _respond)
    app.add_exception_handler(ClientDisconnect, _respond_to_nobody)


async def _respond(request: Request, error: Exception) -> Response:
    found = api_error_of(error)
    if found.status >= 500:
        logger.error("%s %s failed.", request.method, request.url.path, exc_info=error)
    is_anthropic = request.url.path.startswith(_ANTHROPIC_PATH)
    headers = dict(getattr(error, "headers", None) or {})
    if found.status == 429:
        headers["retry-after"] = RETRY_AFTER_SECONDS
    body = error_body("anthropic" if is_anthropic else "openai", found)
    return JSONResponse(body, found.status, headers=headers)


async def _respond_to_nobody(request: Request, error: Exception) -> Response:
    """Count a client that has gone away apart from failures of the server."""
    return Response(status_code=_CLIENT_CLOSED_REQUEST)


def _of_validation(problems: Sequence[Mapping[str, Any]], body: Any = None) -> ApiError:
    """Name the field of the first problem, the one that is not supported if there is one."""
    if problems[0]["type"] == "json_invalid":
        return ApiError(400, "The body is no JSON; send one object", code="invalid_json")
    unknown = (p for p in problems if p["type"] == "extra_forbidden")
    problem = next(unknown, None) or _deepest(problems, body)
    param = ".".join(_field(problem, body)) or None
    if problem["type"] == "extra_forbidden":
        return ApiError(
            400,
            f"{param or repr('')} is not supported here; leave it out",
            code="unsupported_parameter",
            param=param,
        )
    message = str(problem["msg"]).removeprefix("Value error, ")
    told = message if param is None or message.startswith(param) else f"{param}: {message}"
    return ApiError(400, told, code="invalid_value", param=param)


def _deepest(problems: Sequence[Mapping[str, Any]], body: Any) -> Mapping[str, Any]:
    """Return the problem of the first field that meets the kind of a union that was meant."""
    first = _field(problems[0], body)[:1]
    same = [problem for problem in problems if _field(problem, body)[:1] == first]
    return max(same, key=lambda problem: len(_field(problem, body)))


def _field(problem: Mapping[str, Any], body: Any) -> list[str]:
    """Return the path to a field, without the names that pydantic gives to kinds of a union."""
    location = problem["loc"]
    if location[:1] in (("query",), ("path",), ("body",)):
        location, where = location[1:], location[0]
        if where != "body":
            return [str(part) for part in location]
    path = []
    inner = body
    for at, part in enumerate(location):
        is_last = at == len(location) - 1
        may_be_missing = is_last and problem["type"] in ("missing", "extra_forbidden")
        if body is not None and not may_be_missing and not _holds(inner, part):
            continue
        path.append(str(part))
        inner = inner[part] if _holds(inner, part) else None
    return path


def _holds(value: Any, part: int | str) -> bool:
    """Return whether a value of JSON has a part of this name or number."""
    if isinstance(value, dict):
        return part in value
    return isinstance(value, list) and isinstance(part, int) and part < len(value)


def _with_param(error: ApiError) -> str:
    """Return the message, which alone can name the field in Anthropic's shape."""
    message = str(error)
    is_named = error.param is None or error.param in message
    return message if is_named else f"{error.param}: {message}"
