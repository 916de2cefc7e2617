"""The realtime API over a real WebSocket."""

from __future__ import annotations

import json
import logging
import socket as sockets
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

WAIT_SECONDS = 60


class Realtime:
    """Talk over one socket."""

    def __init__(self, socket: Any) -> None:
        self.socket = socket

    def send(self, kind: str, **fields: Any) -> None:
        self.socket.send(json.dumps({"type": kind, **fields}))

    def receive(self, kind: str | None = None) -> Any:
        event = json.loads(self.socket.recv(timeout=WAIT_SECONDS))
        assert event["event_id"]
        if kind is not None:
            assert event["type"] == kind, event
        return event

    def say(self, text: str, role: str = "user") -> Any:
        content = [{"type": "input_text", "text": text}]
        self.send(
            "conversation.item.create", item={"type": "message", "role": role, "content": content}
        )
        item = self.receive("conversation.item.added")["item"]
        self.receive("conversation.item.done")
        return item

    def until_done(self) -> list[Any]:
        events = [self.receive()]
        while events[-1]["type"] != "response.done":
            events.append(self.receive())
        return events

    def respond(self, **fields: Any) -> list[Any]:
        self.send("response.create", response={"max_output_tokens": 4, **fields})
        return self.until_done()


@pytest.fixture
def realtime(server: str) -> Iterator[Realtime]:
    with connect(f"ws{server.removeprefix('http')}/v1/realtime") as socket:
        client = Realtime(socket)
        client.receive("session.created")
        yield client


def kinds_of(events: list[Any]) -> list[str]:
    return [event["type"] for event in events]


def test_a_response_comes_in_the_order_of_the_api(realtime: Realtime) -> None:
    item = realtime.say("Hi")
    events = realtime.respond()
    kinds = kinds_of(events)
    assert kinds[:4] == [
        "response.created",
        "response.output_item.added",
        "conversation.item.added",
        "response.content_part.added",
    ]
    assert kinds[-5:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "conversation.item.done",
        "response.done",
    ]
    text = "".join(e["delta"] for e in events if e["type"] == "response.output_text.delta")
    done = events[-1]["response"]
    assert done["output"][0]["content"] == [{"type": "output_text", "text": text}]
    assert done["usage"]["output_tokens"] == 4
    assert done["status"] == "incomplete"
    assert done["status_details"]["reason"] == "max_output_tokens"
    assert done["streamingllm"]["seen_tokens"] > 0
    realtime.send("conversation.item.retrieve", item_id=item["id"])
    assert realtime.receive("conversation.item.retrieved")["item"]["content"] == item["content"]


def test_a_session_is_continued_on_another_socket(server: str) -> None:
    address = f"ws{server.removeprefix('http')}/v1/realtime"
    headers = {"x-session-id": "realtime-continued"}
    with connect(address, additional_headers=headers) as socket:
        client = Realtime(socket)
        assert client.receive("session.created")["session"]["id"] == "realtime-continued"
        item = client.say("Hi")
        client.respond()
    with connect(address, additional_headers=headers) as socket:
        client = Realtime(socket)
        client.receive("session.created")
        client.send("conversation.item.retrieve", item_id=item["id"])
        client.receive("conversation.item.retrieved")
        usage = client.respond()[-1]["response"]["usage"]
        assert usage["input_token_details"]["cached_tokens"] > 0


def test_settings_are_taken_over(realtime: Realtime) -> None:
    realtime.send(
        "session.update",
        session={"type": "realtime", "instructions": "Be brief.", "max_output_tokens": 3},
    )
    session = realtime.receive("session.updated")["session"]
    assert (session["instructions"], session["max_output_tokens"]) == ("Be brief.", 3)
    realtime.say("Hi")
    realtime.send("response.create")
    assert realtime.until_done()[-1]["response"]["usage"]["output_tokens"] == 3


def test_a_cancelled_response_ends_and_another_begins(realtime: Realtime) -> None:
    realtime.say("Hi")
    realtime.send("response.create", response={"max_output_tokens": 100_000})
    response = realtime.receive("response.created")["response"]
    realtime.send("response.create")
    realtime.send("response.cancel", response_id="resp_another")
    realtime.send("response.cancel", response_id=response["id"])
    events = realtime.until_done()
    codes = [event["error"]["code"] for event in events if event["type"] == "error"]
    assert codes == ["conversation_already_has_active_response", "response_cancel_not_active"]
    assert events[-1]["response"]["status"] == "cancelled"
    # The next answer depends on where the first was cut, so its length is open.
    assert realtime.respond()[-1]["response"]["status"] in ("completed", "incomplete")


def test_responses_follow_one_another_at_once(realtime: Realtime) -> None:
    for _ in range(5):
        realtime.say("Hi")
        assert "error" not in kinds_of(realtime.respond())


def test_a_response_apart_leaves_the_conversation_as_it_is(realtime: Realtime) -> None:
    realtime.say("Hi")
    message = {
        "type": "message",
        "role": "user",
        "content": [{"type": "input_text", "text": "Name this chat."}],
    }
    events = realtime.respond(conversation="none", input=[message])
    assert not any(kind.startswith("conversation.") for kind in kinds_of(events))
    done = events[-1]["response"]
    assert done["conversation_id"] is None
    realtime.send("conversation.item.retrieve", item_id=done["output"][0]["id"])
    assert realtime.receive("error")["error"]["code"] == "item_not_found"


def test_a_response_apart_is_cancelled(realtime: Realtime) -> None:
    message = {
        "type": "message",
        "role": "user",
        "content": [{"type": "input_text", "text": "Count."}],
    }
    settings = {"conversation": "none", "input": [message], "max_output_tokens": 100_000}
    realtime.send("response.create", response=settings)
    realtime.receive("response.created")
    realtime.send("response.cancel")
    assert realtime.until_done()[-1]["response"]["status"] == "cancelled"


def test_a_deleted_item_is_gone(realtime: Realtime) -> None:
    item = realtime.say("Hi")
    realtime.send("conversation.item.delete", item_id=item["id"])
    assert realtime.receive("conversation.item.deleted")["item_id"] == item["id"]
    realtime.send("conversation.item.retrieve", item_id=item["id"])
    assert realtime.receive("error")["error"]["code"] == "item_not_found"


@pytest.mark.parametrize(
    ("frame", "param"),
    [
        ("no JSON", None),
        ("[1]", None),
        ("[" * 100_000, None),
        (b"\xff\x00", None),
        ('{"type": "frobnicate"}', None),
        (
            '{"type": "session.update", "session": {"type": "realtime", "voice": "x"}}',
            "session.update.session.voice",
        ),
        ('{"type": "response.cancel"}', None),
        ('{"type": "conversation.item.delete", "item_id": "\\ud800"}', "item_id"),
        ('{"type": "response.create", "\\ud800": 1}', None),
    ],
)
def test_a_wrong_frame_is_answered_and_the_socket_stays_usable(
    realtime: Realtime, frame: str | bytes, param: str | None
) -> None:
    realtime.socket.send(frame)
    error = realtime.receive("error")["error"]
    assert error["type"] in ("invalid_request_error", "not_found_error")
    if param is not None:
        assert param in (error["param"] or error["message"])
    realtime.say("Hi")


def test_an_error_names_the_event_that_is_wrong(realtime: Realtime) -> None:
    for frame in ({"type": "response.cancel"}, {"type": "frobnicate"}):
        realtime.socket.send(json.dumps({**frame, "event_id": "mine"}))
        assert realtime.receive("error")["error"]["event_id"] == "mine"


def test_a_model_that_is_not_served_is_refused(server: str) -> None:
    with connect(f"ws{server.removeprefix('http')}/v1/realtime?model=another") as socket:
        client = Realtime(socket)
        assert client.receive("error")["error"]["code"] == "model_not_found"
        with pytest.raises(ConnectionClosed):
            socket.recv(timeout=WAIT_SECONDS)


def test_a_client_that_leaves_ends_its_response(server: str) -> None:
    address = f"ws{server.removeprefix('http')}/v1/realtime"
    headers = {"x-session-id": "realtime-left"}
    with connect(address, additional_headers=headers) as socket:
        client = Realtime(socket)
        client.receive("session.created")
        client.say("Hi")
        client.send("response.create", response={"max_output_tokens": 100_000})
        client.receive("response.created")
    with connect(address, additional_headers=headers) as socket:
        client = Realtime(socket)
        client.receive("session.created")
        assert client.respond()[-1]["response"]["status"] in ("completed", "incomplete")


def test_a_broken_connection_is_no_error_of_the_server(
    server: str, caplog: pytest.LogCaptureFixture
) -> None:
    address = f"ws{server.removeprefix('http')}/v1/realtime"
    headers = {"x-session-id": "realtime-broken"}
    for _ in range(3):
        with connect(address, additional_headers=headers) as socket:
            client = Realtime(socket)
            client.receive("session.created")
            client.send("response.create", response={"max_output_tokens": 100_000})
            client.receive("response.created")
            socket.socket.shutdown(sockets.SHUT_RDWR)
    with connect(address, additional_headers=headers) as socket:
        client = Realtime(socket)
        client.receive("session.created")
        assert client.respond()[-1]["response"]["status"] in ("completed", "incomplete")
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR] == []
