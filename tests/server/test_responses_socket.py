"""Responses over WebSocket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

from streamingllm import LanguageModel
from streamingllm.server.responses.runs import ResponseRuns
from streamingllm.server.responses.socket import ResponseSocket
from tests.server.open_responses import check_socket_error, check_socket_events
from tests.server.requests import Api
from tests.sessions.managers import TEN_TOKENS, managing

ENDS = ("response.completed", "response.incomplete", "response.failed", "error")


@pytest.fixture
def socket(server: str) -> Iterator[ClientConnection]:
    with connect(f"{server.replace('http', 'ws')}/v1/responses") as socket:
        yield socket


def ask(socket: ClientConnection, given: Any = "hi", **fields: Any) -> list[Any]:
    """The events of a response."""
    body = {"type": "response.create", "input": given, "max_output_tokens": 6, **fields}
    socket.send(json.dumps(body))
    events: list[Any] = []
    while not events or events[-1]["type"] not in ENDS:
        events.append(json.loads(socket.recv(timeout=60)))
    return events


def response_of(events: list[Any]) -> Any:
    check_socket_events(events)
    return events[-1]["response"]


def error_of(events: list[Any]) -> Any:
    (event,) = events
    check_socket_error(event)
    return event["error"]


def test_several_responses_in_turn_on_one_socket(socket: ClientConnection, api: Api) -> None:
    first = response_of(ask(socket))
    second = response_of(ask(socket, "more", previous_response_id=first["id"]))
    assert second["usage"]["input_tokens_details"]["cached_tokens"] > 0
    assert api.get(f"/v1/responses/{second['id']}").json() == second


def test_what_is_not_stored_is_known_on_its_own_socket_only(
    socket: ClientConnection, server: str
) -> None:
    first = response_of(ask(socket, store=False))
    second = response_of(ask(socket, "more", store=False, previous_response_id=first["id"]))
    assert second["usage"]["input_tokens_details"]["cached_tokens"] > 0
    with connect(f"{server.replace('http', 'ws')}/v1/responses") as other:
        error = error_of(ask(other, "more", previous_response_id=second["id"]))
        assert error["code"] == "previous_response_not_found"
        response_of(ask(other))  # it stays usable


def test_a_result_of_an_unknown_call_ends_its_chain(socket: ClientConnection) -> None:
    first = response_of(ask(socket, store=False))
    output = [{"type": "function_call_output", "call_id": "call_nothing", "output": "4"}]
    error = error_of(ask(socket, output, previous_response_id=first["id"]))
    assert "call_nothing" in error["message"]
    error = error_of(ask(socket, "more", previous_response_id=first["id"]))
    assert error["code"] == "previous_response_not_found"


@pytest.mark.parametrize(
    "frame", ["no JSON", "[]", '{"type": "other"}', '{"type": "response.create", "unheard_of": 1}']
)
def test_a_wrong_frame_is_refused_and_the_socket_stays(
    socket: ClientConnection, frame: str
) -> None:
    socket.send(frame)
    error_of([json.loads(socket.recv(timeout=60))])
    response_of(ask(socket))


def test_one_response_at_a_time(socket: ClientConnection) -> None:
    body = {"type": "response.create", "input": "hi", "max_output_tokens": 10**6}
    socket.send(json.dumps(body | {"temperature": 1.5}))
    socket.send(json.dumps(body))
    kinds = []
    while "error" not in kinds:
        event = json.loads(socket.recv(timeout=60))
        kinds.append(event["type"])
    assert event["error"]["code"] == "response_in_progress"


@pytest.mark.anyio
async def test_after_an_hour_what_runs_ends_and_nothing_begins(
    tiny_chat: LanguageModel, tmp_path: Path
) -> None:
    now = 100.0
    events: list[Any] = []
    has_ended = asyncio.Event()

    async def send(text: str) -> None:
        events.append(json.loads(text))
        if events[-1]["type"] in ENDS:
            has_ended.set()

    frame = json.dumps({"type": "response.create", "input": "hi"})
    async with managing(tiny_chat, tmp_path) as manager:
        socket = ResponseSocket(
            ResponseRuns(manager, 60.0),
            "",
            {},
            send,
            check_model=lambda _: "tiny",
            defaults=TEN_TOKENS,
            clock=lambda: now,
        )
        now += 3599.9
        await socket.receive(frame)
        now += 0.1
        await has_ended.wait()
        check_socket_events(events)
        del events[:]
        await socket.receive(frame)
        error = error_of(events)
        assert error["code"] == "websocket_connection_limit_reached"
        await socket.close()


def test_a_compaction_goes_on_over_a_socket(socket: ClientConnection, api: Api) -> None:
    first = response_of(ask(socket))
    body = {"model": api.model, "previous_response_id": first["id"]}
    items = api.post("/v1/responses/compact", body).json()["output"]
    response = response_of(ask(socket, [*items, {"role": "user", "content": "more"}]))
    assert response["usage"]["input_tokens_details"]["cached_tokens"] > 0
