"""The identity of a request: the first of several names decides."""

from __future__ import annotations

import pytest
from starlette.datastructures import Headers

from streamingllm.errors import InputError
from streamingllm.server.identity import identity_of
from streamingllm.sessions.turn import Identity

HEADERS = {
    "x-session-id": "header",
    "x-openwebui-chat-id": "webui",
    "x-conversation-id": "page",
}
METADATA = {"session_id": "metadata"}


def test_each_name_gives_way_to_the_one_before() -> None:
    headers = dict(HEADERS)
    everything = {"conversation": "conv_1", "previous": ("sess_1", "msg_1")}
    assert identity_of(headers, METADATA, **everything)[0] == Identity("session", "conv_1")
    del everything["conversation"]
    assert identity_of(headers, METADATA, **everything)[0] == Identity("point", "sess_1", "msg_1")
    assert identity_of(headers, METADATA)[0] == Identity("session", "header")
    del headers["x-session-id"]
    assert identity_of(headers, METADATA, session_id="own")[0] == Identity("session", "own")
    assert identity_of(headers, METADATA)[0] == Identity("chat", "webui")
    del headers["x-openwebui-chat-id"]
    assert identity_of(headers, METADATA)[0] == Identity("chat", "page")
    del headers["x-conversation-id"]
    assert identity_of(headers, METADATA)[0] == Identity("session", "metadata")
    assert identity_of(headers, {})[0] == Identity("transcript")


@pytest.mark.parametrize("name", ["X-OpenWebUI-Chat-Id", "X-Chat-Id", "X-Conversation-Id"])
def test_headers_of_chat_pages_name_a_chat(name: str) -> None:
    assert identity_of(Headers({name: "c1"}))[0] == Identity("chat", "c1")


def test_a_task_of_open_webui_is_a_side_task() -> None:
    headers = Headers({"X-OpenWebUI-Chat-Id": "c1", "X-OpenWebUI-Task": "title_generation"})
    assert identity_of(headers) == (Identity("chat", "c1"), True)
    assert identity_of(Headers({"X-OpenWebUI-Task": ""}))[1] is False


@pytest.mark.parametrize("wrong", ["a b", "a/b", "x" * 129, "é", "a\nb"])
def test_an_id_that_no_header_can_carry_is_refused(wrong: str) -> None:
    with pytest.raises(InputError, match="x-session-id="):
        identity_of({"x-session-id": wrong})
    with pytest.raises(InputError, match=r"metadata\.session_id="):
        identity_of({}, {"session_id": wrong})


def test_two_session_ids_that_differ_are_refused() -> None:
    with pytest.raises(InputError, match="differs"):
        identity_of({"x-session-id": "a"}, session_id="b")
    assert identity_of({"x-session-id": "a"}, session_id="a")[0] == Identity("session", "a")


def test_an_empty_header_names_nothing() -> None:
    assert identity_of({"x-session-id": "", "x-chat-id": ""})[0] == Identity("transcript")
