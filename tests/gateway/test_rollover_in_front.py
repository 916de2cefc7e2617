"""A gateway that keeps chats within the context of a real server."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.gateway.conftest import chat, said
from tests.gateway.gateway_process import gateway_to

SYSTEM = said("Be brief.", "system")
FACT = "My hamster is called Napoleon."
ANSWER = "y" * 60
REFUSES = {"streamingllm": {"truncation": "disabled"}}  # as servers do that evict nothing


@pytest.fixture(scope="module")
def rolling(upstream: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A gateway to a server of 512 tokens, of which it knows 220: a token there is a byte."""
    folder = tmp_path_factory.mktemp("rolling")
    options = ("--context-limit", "220", "--recall-tokens", "60", "--answer-tokens", "20")
    with gateway_to(upstream, folder, *options) as address:
        yield address


def talk(address: str, session: str | None, num_turns: int, **fields: Any) -> Iterator[Any]:
    """Send the whole history in each turn, as clients do; yield each answer."""
    history = [SYSTEM]
    for number in range(num_turns):
        history.append(said(f"This is message {number} of a long conversation."))
        answer = chat(address, session, *history, **REFUSES, **fields)
        yield answer
        if answer.status_code != 200:
            return
        if fields.get("stream"):
            history.append(said("Yes.", "assistant"))
        else:
            history.append(answer.json()["choices"][0]["message"])


def test_without_a_rollover_the_chat_ends(gateway: str) -> None:
    *_, last = talk(gateway, "ends", 30)
    assert last.status_code == 400
    assert last.json()["error"]["code"] == "context_length_exceeded"


@pytest.mark.parametrize("session", ["named", None])
def test_a_chat_goes_on_and_says_what_it_forgot(rolling: str, session: str | None) -> None:
    firsts = []
    for number, answer in enumerate(talk(rolling, session, 30)):
        assert answer.status_code == 200, answer.text
        told = answer.json()["streamingllm"]
        assert told["seen_tokens"] - told["forgotten_tokens"] == told["visible_tokens"]
        assert told["first_visible_message"] <= 2 * number + 1
        firsts.append(told["first_visible_message"])
    assert number == 29
    assert firsts == sorted(firsts)
    assert firsts[0] == 1
    assert firsts[-1] > 40
    assert_detail_is_that_of(rolling, answer)


def assert_detail_is_that_of(address: str, answer: Any) -> None:
    """The stored session says what its last request saw, and its messages say it too."""
    told, name = answer.json()["streamingllm"], answer.headers["x-session-id"]
    detail = httpx2.get(f"{address}/v1/sessions/{name}").json()
    assert detail["cache_size"] == 220
    view, messages = detail["streamingllm"], detail["messages"]
    for field in ("forgotten_tokens", "pinned_tokens", "first_visible_message"):
        assert view[field] == told[field]
    assert view["seen_tokens"] == told["seen_tokens"] + messages[-1]["num_tokens"]
    hidden = [message["visibility"] == "forgotten" for message in messages[1:]]
    first = told["first_visible_message"]
    assert hidden == [number < first for number in range(1, len(messages))]
    assert [message["role"] for message in messages[:2]] == ["system", "user"]
    assert messages[-1]["id"] == told["message_id"]
    assert messages[first]["id"] == told["first_visible_message_id"]
    listed = httpx2.get(f"{address}/v1/sessions").json()["data"]
    (found,) = (one for one in listed if one["id"] == name)
    assert found["seen_tokens"] == view["seen_tokens"]


def test_what_rolled_out_is_recalled(rolling: str) -> None:
    history = [SYSTEM, said(FACT), said("Yes.", "assistant")]
    for number in range(12):
        history += [said(f"This is message {number} of many."), said("Yes.", "assistant")]
    chat(rolling, "hamster", *history, said("Go on."), **REFUSES)
    history += [said("Go on."), said("Yes.", "assistant"), said("What is my hamster called?")]
    answer = chat(rolling, "hamster", *history, **REFUSES)
    assert answer.status_code == 200, answer.text
    told = answer.json()["streamingllm"]
    assert told["first_visible_message"] > 1
    assert FACT in [piece["text"] for piece in told["recalled"]]


def test_streams_roll_too(rolling: str) -> None:
    for answer in talk(rolling, "streamed", 12, stream=True):
        assert answer.status_code == 200, answer.text
        *_, last, done = [line for line in answer.text.splitlines() if line]
        assert done == "data: [DONE]"
        assert json.loads(last[6:])["streamingllm"]["visible_tokens"] > 0


def test_a_message_that_does_not_fit_is_refused_by_name(rolling: str) -> None:
    answer = chat(rolling, None, said("word " * 200), **REFUSES)
    assert answer.status_code == 400
    assert "the last turn takes about" in answer.json()["error"]["message"]


class Records(BaseHTTPRequestHandler):
    """Answer, and keep what was asked."""

    asked: list[dict[str, Any]]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.asked.append(body)
        said = {"index": 0, "finish_reason": "stop"}
        whole = {"choices": [{**said, "message": {"role": "assistant", "content": ANSWER}}]}
        streamed = {"choices": [{**said, "delta": {"content": ANSWER}}]}
        told = json.dumps(whole)
        if body.get("stream"):
            told = f"data: {json.dumps(streamed)}\n\ndata: [DONE]\n\n"
        kind = "text/event-stream" if body.get("stream") else "application/json"
        self.send_response(200)
        self.send_header("content-type", kind)
        self.end_headers()
        self.wfile.write(told.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("stream", [False, True])
def test_the_next_rollover_is_warmed(tmp_path: Path, stream: bool) -> None:
    Records.asked = []
    options = ("--context-limit", "400", "--answer-tokens", "40", "--recall-tokens", "0")
    with ThreadingHTTPServer(("127.0.0.1", 0), Records) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        with gateway_to(url, tmp_path, *options) as address:
            history, num_turns = [SYSTEM], 24
            for number in range(num_turns):
                history.append(said(f"{number:03}" * 20))
                chat(address, None, *history, stream=stream)
                history.append(said(ANSWER, "assistant"))
            plain = [body["messages"] for body in Records.asked if body["max_tokens"] == 4]
            rolled = [b for a, b in pairwise(plain) if len(b) < len(a)]
            for _ in range(500):  # the last may still be on its way
                warmed = [body["messages"] for body in Records.asked if body["max_tokens"] == 1]
                if all(messages[:-1] in warmed for messages in rolled):
                    break
                time.sleep(0.01)
        server.shutdown()
    assert len(plain) == num_turns
    assert len(rolled) >= 3
    for messages in rolled:
        assert messages[:-1] in warmed
