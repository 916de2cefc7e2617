"""WebSockets of clients with different keys."""

from __future__ import annotations

import json
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

WAIT_SECONDS = 60
PATHS = ("/v1/realtime", "/v1/streams/secret")


def opened(url: str, path: str, key: str, **headers: str) -> Any:
    fields = {"authorization": f"Bearer {key}", **headers}
    return connect(f"ws{url.removeprefix('http')}{path}", additional_headers=fields)


def receive(socket: Any) -> Any:
    return json.loads(socket.recv(timeout=WAIT_SECONDS))


@pytest.mark.parametrize("path", PATHS)
def test_a_wrong_key_opens_no_socket(keyed_server: str, path: str) -> None:
    with pytest.raises(InvalidStatus) as refused, opened(keyed_server, path, "eve"):
        pass
    assert refused.value.response.status_code in (401, 403)


def test_a_stream_of_another_key_is_neither_read_nor_fed(keyed_server: str) -> None:
    with opened(keyed_server, "/v1/streams/secret", "alice") as socket:
        receive(socket)
        socket.send(json.dumps({"type": "feed", "text": "the password is xyzzy"}))
        fed = receive(socket)["streamingllm"]
    with opened(keyed_server, "/v1/streams/secret", "bob") as socket:
        ready = receive(socket)["streamingllm"]
        assert ready is None or ready["first_visible_message"] is None
        socket.send(json.dumps({"type": "feed", "text": "of bob"}))
        assert receive(socket).get("streamingllm") != fed
    with opened(keyed_server, "/v1/streams/secret", "alice") as socket:
        assert receive(socket)["streamingllm"] == fed


def test_a_session_of_another_key_is_not_continued(keyed_server: str) -> None:
    name = {"x-session-id": "of-alice"}
    content = [{"type": "input_text", "text": "the password is xyzzy"}]
    item = {"type": "message", "role": "user", "content": content, "id": "item_secret"}
    with opened(keyed_server, "/v1/realtime", "alice", **name) as socket:
        receive(socket)
        socket.send(json.dumps({"type": "conversation.item.create", "item": item}))
        assert receive(socket)["type"] == "conversation.item.added"
    with opened(keyed_server, "/v1/realtime", "bob", **name) as socket:
        receive(socket)
        for kind in ("conversation.item.retrieve", "conversation.item.delete"):
            socket.send(json.dumps({"type": kind, "item_id": "item_secret"}))
            answer = receive(socket)
            assert answer["type"] == "error"
            assert answer["error"]["code"] == "item_not_found"
    with opened(keyed_server, "/v1/realtime", "alice", **name) as socket:
        receive(socket)
        socket.send(json.dumps({"type": "conversation.item.retrieve", "item_id": "item_secret"}))
        assert receive(socket)["item"]["content"] == content
