"""`/openapi.json` against the answers of every route."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from jsonschema import Draft202012Validator

from streamingllm import LanguageModel
from tests.server.asgi import Answer, request
from tests.server.requests import Api
from tests.server.serving import small_app

_LOCAL = {"host": "localhost", "content-type": "application/json"}


@pytest.fixture(scope="module")
def app(tiny_chat: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FastAPI]:
    """An application with a key and with bodies of 1,000 bytes at most."""
    folder = tmp_path_factory.mktemp("described")
    app = small_app(tiny_chat, folder, api_key=("key",), max_body_bytes=1000)
    yield app
    asyncio.run(app.state.manager.close())


@pytest.fixture(scope="module")
def document(app: FastAPI) -> Any:
    """The description as clients read it."""
    answer = asyncio.run(request(app, "/openapi.json", _LOCAL))
    return answer.json()


def operations(document: Any, prefix: str = "/") -> list[tuple[str, str, Any]]:
    """All routes and methods below a path."""
    return [
        (path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if path.startswith(prefix)
    ]


def check(document: Any, path: str, method: str, status: int, body: Any) -> None:
    """Assert that an answer is described, and has the shape that is described."""
    described = document["paths"][path][method]["responses"]
    where = f"{method} {path} {status}: {body}"
    assert str(status) in described, where
    schema = described[str(status)]["content"]["application/json"]["schema"]
    error = next(Draft202012Validator({**document, **schema}).iter_errors(body), None)
    assert error is None, f"{where}: {error.message}"


def test_a_wrong_field_is_described_as_400_and_never_as_422(document: Any) -> None:
    for path, method, operation in operations(document):
        assert "422" not in operation["responses"], f"{method} {path}"
        takes_fields = "requestBody" in operation or any(
            parameter["in"] == "query" for parameter in operation.get("parameters", ())
        )
        assert "400" in operation["responses"] or not takes_fields, f"{method} {path}"


def test_all_schemas_are_used_and_defined(document: Any) -> None:
    text = json.dumps(document)
    used = set(re.findall(r"#/components/schemas/([\w.-]+)", text))
    assert used == document["components"]["schemas"].keys()


def test_a_wrong_field_of_any_route_is_answered_as_described(api: Api) -> None:
    document = api.get("/openapi.json").json()
    sent = 0
    for path, method, operation in operations(document, "/v1/"):
        target = re.sub(r"\{\w+\}", "none", path)
        wrong: list[tuple[str, bytes | None]] = [
            (f"?{parameter['name']}=%F0%9F%A6%93", None)
            for parameter in operation.get("parameters", ())
            if parameter["in"] == "query"
        ]
        if "requestBody" in operation:
            wrong += [("", body) for body in (b'{"no_such_field": 1}', b"[1]", b"{", b"null", b"")]
        for query, body in wrong or [("", None)]:
            answer = api.raw(method, target + query, body)
            check(document, path, method, answer.status_code, answer.json())
            sent += 1
    assert sent > 60


def test_requests_that_reach_no_route_are_answered_as_described(
    app: FastAPI, document: Any
) -> None:
    keyed = {**_LOCAL, "authorization": "Bearer key"}
    refused = {
        401: (_LOCAL, b""),
        403: ({**keyed, "host": "evil.example"}, b""),
        413: ({**keyed, "content-length": "1001"}, b" " * 1001),
    }

    async def answer(path: str, method: str, headers: dict[str, str], body: bytes) -> Answer:
        target = re.sub(r"\{\w+\}", "none", path)
        return await request(app, target, headers, method=method.upper(), chunks=(body,))

    def check_all(status: int, headers: dict[str, str], body: bytes) -> None:
        for path, method, _ in operations(document, "/v1/"):
            got = asyncio.run(answer(path, method, headers, body))
            assert got.status == status, f"{method} {path}: {got.body!r}"
            check(document, path, method, status, got.json())

    for status, (headers, body) in refused.items():
        check_all(status, headers, body)
    app.state.is_draining = True
    check_all(503, keyed, b"")
    app.state.is_draining = False


def test_keys_and_the_headers_of_a_turn_are_described(
    document: Any, tiny_chat: LanguageModel, tmp_path: Path
) -> None:
    assert {} not in document["security"]
    for path in ("/v1/chat/completions", "/v1/responses", "/v1/messages"):
        operation = document["paths"][path]["post"]
        headers = {p["name"] for p in operation["parameters"] if p["in"] == "header"}
        assert {"x-session-id", "x-openwebui-chat-id", "x-streamingllm-events"} <= headers
        assert "x-session-id" in operation["responses"]["200"]["headers"]
        assert "text/event-stream" in operation["responses"]["200"]["content"]
    open_app = small_app(tiny_chat, tmp_path)
    assert {} in open_app.openapi()["security"]
    asyncio.run(open_app.state.manager.close())


def test_models_are_described_in_both_shapes(api: Api) -> None:
    document = api.get("/openapi.json").json()
    for headers in ({}, {"anthropic-version": "2023-06-01"}):
        answer = api.get("/v1/models", headers=headers)
        check(document, "/v1/models", "get", answer.status_code, answer.json())
        assert ("object" in answer.json()) is not bool(headers)
        one = api.get(f"/v1/models/{api.model}", headers=headers)
        check(document, "/v1/models/{model_id}", "get", one.status_code, one.json())
        assert ("type" in one.json()) is bool(headers)
