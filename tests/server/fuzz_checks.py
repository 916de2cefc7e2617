"""Decide whether an answer to a random request keeps the rules of the API."""

from __future__ import annotations

import json
from typing import Any

from jsonschema import Draft202012Validator

from tests.server.fuzz_requests import FuzzRequest
from tests.server.open_responses import check_events, check_response, without_discriminators

_ENDS_OF_MESSAGES = ("message_stop", "error")


class AnswerChecks:
    """Check answers against the OpenAPI document of the server.

    Args:
        document: that describes the answers.
    """

    def __init__(self, document: Any) -> None:
        self._document = without_discriminators(document)
        self._validators: dict[str, Draft202012Validator] = {}

    def check(self, request: FuzzRequest, status: int, content_type: str, body: bytes) -> Any:
        """Return the JSON of an answer, or its last event.

        Raises:
            AssertionError: a rule is broken.
        """
        assert status < 500, body[:500]
        assert b"internal_error" not in body, body[:800]
        described = self._described(request)
        assert str(status) in described, f"status {status} is not described: {body[:300]!r}"
        if content_type.startswith("text/event-stream"):
            return _check_stream(request, body.decode())
        if not content_type.startswith("application/json"):
            assert content_type.split(";")[0] in described[str(status)]["content"], content_type
            return None
        answer = json.loads(body)
        if status >= 400:
            check_error(request.route, answer)
        schema = described[str(status)]["content"]["application/json"].get("schema", {})
        self._validate(schema, answer)
        if answer.get("object") == "response" and "deleted" not in answer:
            check_response(answer)
        return answer

    def _described(self, request: FuzzRequest) -> Any:
        return self._document["paths"][request.route][request.method.lower()]["responses"]

    def _validate(self, schema: Any, value: Any) -> None:
        key = json.dumps(schema)
        if key not in self._validators:
            self._validators[key] = Draft202012Validator({**self._document, **schema})
        error = next(self._validators[key].iter_errors(value), None)
        assert error is None, f"{list(error.absolute_path)}: {error.message[:300]}"


def check_error(route: str, answer: Any) -> None:
    """Assert that an error has the shape of its API, and says something."""
    if route.startswith("/v1/messages"):
        assert answer["type"] == "error", answer
        fields = {"type", "message"}
    else:
        fields = {"type", "message", "param", "code"}
    error = answer["error"]
    assert error.keys() == fields, answer
    assert error["type"] != "api_error", answer
    assert isinstance(error["message"], str), answer
    assert error["message"], answer


def _check_stream(request: FuzzRequest, text: str) -> Any:
    events: list[Any] = []
    for block in text.split("\n\n"):
        data = [line[6:] for line in block.split("\n") if line.startswith("data: ")]
        if data:
            events.append("[DONE]" if data == ["[DONE]"] else json.loads("\n".join(data)))
    assert events, text
    if request.route.startswith("/v1/messages"):
        assert events[-1]["type"] in _ENDS_OF_MESSAGES, events[-1]
        return events[-1]
    assert events[-1] == "[DONE]", events[-1]
    if request.route == "/v1/responses":
        own = [e for e in events if e != "[DONE]" and e["type"].startswith("streamingllm.")]
        if not own:
            check_events(events)
    return events[-2]
