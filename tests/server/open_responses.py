"""Check responses and their events against the Open Responses specification."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

_SPECIFICATION = Path(__file__).parent / "specs" / "openresponses.json"


def check_response(response: Any) -> None:
    """Assert that a response is one of the specification."""
    _check("ResponseResource", response)


def check_events(events: list[Any]) -> None:
    """Assert that a stream is one of the specification: its events, their order, its end."""
    assert events[-1] == "[DONE]"
    for number, event in enumerate(events[:-1]):
        _check(_event_schemas()[event["type"]], event)
        assert event["sequence_number"] == number
    assert [e["type"] for e in events[:1]] == ["response.created"]
    assert events[-2]["type"] in {
        f"response.{end}" for end in ("completed", "incomplete", "failed")
    }


def check_socket_events(events: list[Any]) -> None:
    """Assert the same of the events of a WebSocket, which have no end mark."""
    check_events([*events, "[DONE]"])


def check_compaction(answer: Any) -> None:
    """Assert that a compaction is one of the specification."""
    _check("CompactResource", answer)


def check_socket_error(event: Any) -> None:
    """Assert that an error of a WebSocket is one of the specification."""
    _check("WebSocketErrorEvent", event)


def _check(name: str, value: Any) -> None:
    errors = [
        f"{list(e.absolute_path)}: {e.message[:300]}" for e in _validator(name).iter_errors(value)
    ]
    assert not errors, (name, errors)


@cache
def _event_schemas() -> dict[str, str]:
    schemas = specification()["components"]["schemas"]
    found = {}
    for name, schema in schemas.items():
        kinds = schema.get("properties", {}).get("type", {}).get("enum", [])
        if name.endswith("StreamingEvent") and len(kinds) == 1:
            found[kinds[0]] = name
    return found


@cache
def _validator(name: str) -> Draft202012Validator:
    reference = {"$ref": f"#/components/schemas/{name}"}
    return Draft202012Validator({**specification(), **reference})


@cache
def specification() -> Any:
    """The OpenAPI document of Open Responses."""
    return without_discriminators(json.loads(_SPECIFICATION.read_text()))


def without_discriminators(value: Any) -> Any:
    """Strip discriminators: the specification's have no mapping."""
    if isinstance(value, dict):
        return {k: without_discriminators(v) for k, v in value.items() if k != "discriminator"}
    if isinstance(value, list):
        return [without_discriminators(item) for item in value]
    return value
