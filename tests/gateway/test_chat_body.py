"""Bodies of chat completions as servers and clients write them."""

from __future__ import annotations

import json

import pytest

from streamingllm.errors import InputError
from streamingllm.gateway.chat_body import AnswerReader, Facts, text_of, told_in, with_recall
from streamingllm.gateway.seen_messages import Told
from streamingllm.gateway.turn_memory import Asked, Turn
from streamingllm.gateway.turn_place import Place
from streamingllm.sessions.recall import Recall, RecalledText
from streamingllm.sessions.turn import Identity, SessionView

PIECE = RecalledText("msg_1", 3, "It is Rex.", 2.0, "Ada", 0.0)
CALL = {"function": {"name": "find", "arguments": '{"thing": "lamp"}'}}


def turn_with(*recalled: RecalledText) -> Turn:
    view = SessionView("s", 0, 0, 0, None, None, 0, recall=Recall(recalled))
    return Turn(Asked("", Identity("session", "s"), ()), Place("s", None, 0, ()), view, 0, "msg_2")


def chunk(delta: dict[str, object], finish_reason: str | None = None) -> str:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return f"data: {json.dumps({'choices': [choice]})}"


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": "Hi."}, "Hi."),
        ({"content": [{"type": "text", "text": "a"}, {"type": "image_url"}]}, "a"),
        ({"content": None, "tool_calls": [CALL]}, 'find({"thing": "lamp"})'),
        ({"content": None}, ""),
    ],
)
def test_the_text_of_a_message(message: dict[str, object], text: str) -> None:
    assert text_of(message) == text


def test_recalled_text_stands_before_the_last_message_only() -> None:
    messages = [{"role": "user", "content": "first"}, {"role": "user", "content": "last"}]
    body = with_recall({"model": "m", "messages": messages}, turn_with(PIECE))
    assert body["messages"][0] == messages[0]
    told = body["messages"][1]["content"]
    assert told.endswith("\nlast")
    assert "Ada: It is Rex." in told
    assert with_recall({"messages": messages}, turn_with())["messages"] == messages
    assert messages[1]["content"] == "last"


def test_parts_of_a_message_stay() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:,"}}
    body = {"messages": [{"role": "user", "content": [picture]}]}
    first, second = with_recall(body, turn_with(PIECE))["messages"][0]["content"]
    assert "It is Rex." in first["text"]
    assert second == picture


def test_messages_that_are_none_are_refused() -> None:
    with pytest.raises(InputError, match="messages: is no list"):
        told_in({"messages": ["Hi."]})
    assert told_in({"messages": [{"role": "user", "content": "Hi."}]}) == [Told("user", "Hi.")]


def test_a_stream_is_read_and_only_its_end_is_changed() -> None:
    reader = AnswerReader(Facts({"recalled": []}))
    lines = [": ping", "", chunk({"content": "Hel"}), chunk({"content": "lo"}), "data: [DONE]"]
    assert [reader.line(line) for line in lines] == lines
    assert not reader.is_whole
    ended = json.loads(reader.line(chunk({}, "stop")).removeprefix("data: "))
    assert ended["streamingllm"] == {"recalled": []}
    assert (reader.text, reader.is_whole) == ("Hello", True)


def test_a_streamed_call_of_a_tool_has_the_text_of_a_whole_one() -> None:
    reader = AnswerReader(Facts({}))
    parts = [{"name": "find", "arguments": '{"thing"'}, {"arguments": ': "lamp"}'}]
    for part in parts:
        reader.line(chunk({"tool_calls": [{"index": 0, "function": part}]}))
    assert reader.text == text_of({"content": None, "tool_calls": [CALL]})


def test_fields_of_the_upstream_stay_but_for_those_of_the_gateway() -> None:
    told = {"streamingllm": {"seen_tokens": 9, "session_id": "theirs", "notices": ["Hi."]}}
    facts = Facts({"session_id": "ours"}, {"seen_tokens": 1, "visible_tokens": 1})
    assert facts.added_to(told)["streamingllm"] == {
        "seen_tokens": 9,
        "visible_tokens": 1,
        "session_id": "ours",
        "notices": ["Hi."],
    }
