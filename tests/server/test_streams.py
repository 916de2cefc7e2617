"""Feeds without end over a real WebSocket."""

from __future__ import annotations

import asyncio
import json
import logging
import socket as sockets
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from starlette.websockets import WebSocketDisconnect
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from streamingllm import LanguageModel
from streamingllm.server.running import server_config
from streamingllm.server.settings import ServerSettings
from streamingllm.server.streams import StreamConnection
from tests.server.serving import serving, small_app
from tests.sessions.managers import TEN_TOKENS, managing

WAIT_SECONDS = 60


class Feed:
    """Feed a stream over one socket."""

    def __init__(self, socket: Any) -> None:
        self.socket = socket

    def send(self, kind: str, **fields: Any) -> None:
        self.socket.send(json.dumps({"type": kind, **fields}))

    def receive(self, kind: str | None = None) -> Any:
        frame = json.loads(self.socket.recv(timeout=WAIT_SECONDS))
        if kind is not None:
            assert frame["type"] == kind, frame
        return frame

    def feed(self, text: str) -> Any:
        self.send("feed", text=text)
        return self.receive("fed")["streamingllm"]

    def until(self, kind: str) -> list[Any]:
        frames = [self.receive()]
        while frames[-1]["type"] != kind:
            frames.append(self.receive())
        return frames


def address_of(server: str, stream_id: str) -> str:
    return f"ws{server.removeprefix('http')}/v1/streams/{stream_id}"


@pytest.fixture
def feed(server: str) -> Iterator[Feed]:
    with connect(address_of(server, f"feed-{uuid4().hex}")) as socket:
        client = Feed(socket)
        client.receive("ready")
        yield client


def test_a_feed_goes_on_far_past_the_cache(feed: Feed) -> None:
    before = feed.feed("start ")["seen_tokens"]
    for _ in range(20):
        seen = feed.feed("one more line of a log. ")
    assert seen["seen_tokens"] == before + 20 * len("one more line of a log. ")
    assert seen["forgotten_tokens"] == seen["seen_tokens"] - seen["visible_tokens"] > 0
    feed.send("inspect")
    assert feed.receive("view")["streamingllm"] == seen


def test_a_question_is_answered_while_the_feed_goes_on(feed: Feed) -> None:
    feed.feed("the sky is blue. ")
    feed.send("ask", id="colour", question="?", max_tokens=20)
    for _ in range(3):
        feed.send("feed", text="more. ")
    frames: list[Any] = []
    while sum(frame["type"] != "delta" for frame in frames) < 4:
        frames.append(feed.receive())
    (answer,) = (frame for frame in frames if frame["type"] == "answer")
    text = "".join(frame["text"] for frame in frames if frame["type"] == "delta")
    assert (answer["id"], answer["text"], answer["finish_reason"]) == ("colour", text, "length")


def test_a_question_leaves_the_feed_as_it_is(feed: Feed) -> None:
    before = feed.feed("the sky is blue. ")
    feed.send("ask", question="?", max_tokens=5)
    feed.until("answer")
    feed.send("inspect")
    assert feed.receive("view")["streamingllm"] == before


def test_a_question_is_cancelled(feed: Feed) -> None:
    feed.feed("the sky is blue. ")
    feed.send("ask", id="long", question="?", max_tokens=100_000)
    feed.receive("delta")
    feed.send("ask", id="long", question="again?")
    feed.send("cancel", id="long")
    frames = feed.until("answer")
    assert frames[-1]["finish_reason"] == "cancelled"
    assert [f["error"]["type"] for f in frames if f["type"] == "error"] == ["invalid_request_error"]
    feed.feed("more")


def test_a_stream_outlives_its_socket(server: str) -> None:
    with connect(address_of(server, "outliving")) as socket:
        client = Feed(socket)
        client.receive("ready")
        seen = client.feed("the sky is blue. ")
        client.send("ask", question="?", max_tokens=100_000)
        client.receive("delta")
    with connect(address_of(server, "outliving")) as socket:
        client = Feed(socket)
        assert client.receive("ready")["streamingllm"] == seen
        assert client.feed("more")["seen_tokens"] == seen["seen_tokens"] + 4


@pytest.mark.parametrize(
    ("frame", "named"),
    [
        ("no JSON", "JSON"),
        ("[1]", ""),
        ("[" * 100_000, "JSON"),
        (b"\xff\x00", "JSON"),
        ('{"type": "frobnicate"}', "feed"),
        ('{"type": "feed", "text": ""}', "text"),
        ('{"type": "feed", "text": "x", "frobnicate": 1}', "frobnicate"),
        ('{"type": "ask", "question": "?", "max_tokens": 0}', "max_tokens"),
        ('{"type": "cancel", "id": "\\ud800"}', "id"),
    ],
)
def test_a_wrong_frame_is_answered_and_the_socket_stays_usable(
    feed: Feed, frame: str | bytes, named: str
) -> None:
    feed.socket.send(frame)
    error = feed.receive("error")["error"]
    assert error["type"] in ("invalid_request_error", "not_found_error")
    assert named in error["message"]
    feed.feed("x")


def test_a_client_whose_frames_wait_behind_a_long_feed_is_not_cut_off(
    tiny_chat: LanguageModel, tmp_path: Path
) -> None:
    app = small_app(tiny_chat, tmp_path)
    config = server_config(app, ServerSettings())
    seconds = (config.ws_ping_interval, config.ws_ping_timeout)
    interval, timeout = (None if value is None else value / 2000 for value in seconds)
    with (
        serving(app, ws_ping_interval=interval, ws_ping_timeout=timeout) as url,
        connect(address_of(url, "long")) as socket,
    ):
        client = Feed(socket)
        client.receive("ready")
        client.send("feed", text="more. " * 2000)
        for _ in range(3):
            client.send("feed", text="and more. ")
        for _ in range(4):
            seen = client.receive("fed")["streamingllm"]["seen_tokens"]
        assert seen >= 6 * 2000 + 3 * 10


def test_a_question_needs_a_feed(feed: Feed) -> None:
    feed.send("ask", id="early", question="?")
    error = feed.receive("error")
    assert error["id"] == "early"
    assert "feed" in error["error"]["message"]


@pytest.mark.anyio
async def test_a_question_that_fails_when_nobody_listens_is_no_error(
    tiny_chat: LanguageModel, tmp_path: Path
) -> None:
    async def send(_: str) -> None:
        raise WebSocketDisconnect

    async with managing(tiny_chat, tmp_path) as manager:
        client = StreamConnection(manager, "", send, session_id="s", defaults=TEN_TOKENS)
        await manager.create("", session_id="s")
        await client.receive('{"type": "ask", "question": "early?"}')
        (task,) = client._questions.values()
        await asyncio.wait({task})
        assert task.exception() is None


def test_a_name_that_is_none_is_refused(server: str) -> None:
    with connect(address_of(server, "a%20b")) as socket, pytest.raises(ConnectionClosed) as closed:
        socket.recv(timeout=WAIT_SECONDS)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1008


def test_a_broken_connection_is_no_error_of_the_server(
    server: str, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        with connect(address_of(server, "broken")) as socket:
            client = Feed(socket)
            client.receive("ready")
            client.feed("the sky is blue. ")
            client.send("ask", question="?", max_tokens=100_000)
            client.receive("delta")
            socket.socket.shutdown(sockets.SHUT_RDWR)
    with connect(address_of(server, "broken")) as socket:
        client = Feed(socket)
        client.receive("ready")
        client.feed("more")
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR] == []
