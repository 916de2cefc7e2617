"""The gateway in front of a real server: recall, streams, errors, retries, everything else."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import apsw
import httpx2
import pytest

from tests.gateway.conftest import chat, said
from tests.gateway.gateway_process import gateway_to

FACT = "My hamster is called Napoleon."
QUESTION = "What is my hamster called?"


def events_of(answer: Any) -> list[Any]:
    lines = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def test_what_was_said_is_recalled_when_a_client_sends_its_last_message_only(gateway: str) -> None:
    chat(gateway, "hamster", said(FACT))
    answer = chat(gateway, "hamster", said(QUESTION)).json()
    assert FACT in [piece["text"] for piece in answer["streamingllm"]["recalled"]]
    assert answer["streamingllm"]["session_id"] == "hamster"
    assert answer["choices"][0]["message"]["content"]
    assert answer["streamingllm"]["seen_tokens"] > 0  # the upstream's own field stays


def test_the_upstream_reads_the_recalled_text_before_the_message(gateway: str) -> None:
    tokens = [
        chat(gateway, name, *told, said(QUESTION)).json()["usage"]["prompt_tokens"]
        for name, told in (("read", ()), ("other", ()))
    ]
    assert tokens[0] == tokens[1]
    chat(gateway, "reads", said(FACT))
    with_recall = chat(gateway, "reads", said(QUESTION)).json()
    assert with_recall["usage"]["prompt_tokens"] > tokens[0] + len(FACT)


def test_a_stream_has_the_same_answer_and_facts(gateway: str) -> None:
    for name in ("whole", "streamed"):
        chat(gateway, name, said(FACT))
    whole = chat(gateway, "whole", said(QUESTION)).json()
    answer = chat(gateway, "streamed", said(QUESTION), stream=True)
    assert answer.headers["content-type"].startswith("text/event-stream")
    chunks = events_of(answer)
    text = "".join(c["delta"].get("content") or "" for chunk in chunks for c in chunk["choices"])
    assert text == whole["choices"][0]["message"]["content"]
    told, expected = (
        [piece["text"] for piece in one["streamingllm"]["recalled"]] for one in (chunks[-1], whole)
    )
    assert told == expected
    again = chat(gateway, "streamed", said("And Napoleon?")).json()["streamingllm"]["recalled"]
    assert QUESTION in [piece["text"] for piece in again]


def test_a_retry_does_not_double_a_turn(gateway: str) -> None:
    for retry_count in (0, 1, 2):
        answer = chat(gateway, "retried", said(FACT), retry_count=retry_count)
        assert answer.status_code == 200
    recalled = chat(gateway, "retried", said(QUESTION)).json()["streamingllm"]["recalled"]
    assert [piece["text"] for piece in recalled].count(FACT) == 1


def test_a_request_without_a_name_has_a_session_by_what_it_repeats(
    gateway: str, upstream: str
) -> None:
    fields, messages = {"seed": 1}, [said("Hello there.")]
    here, there = (chat(url, None, *messages, **fields) for url in (gateway, upstream))
    assert here.json()["choices"] == there.json()["choices"]
    told = [*messages, here.json()["choices"][0]["message"], said("And again.")]
    again = chat(gateway, None, *told)
    assert again.headers["x-session-id"] == here.headers["x-session-id"]
    assert again.json()["streamingllm"]["session_id"] == here.headers["x-session-id"]
    other = chat(gateway, None, *messages, **fields)
    assert other.headers["x-session-id"] != here.headers["x-session-id"]


def test_a_side_task_has_no_session(gateway: str) -> None:
    headers = {"x-openwebui-chat-id": "side", "x-openwebui-task": "title"}
    answer = chat(gateway, None, said("Find a title."), headers=headers)
    assert answer.status_code == 200
    found = httpx2.get(f"{gateway}/v1/sessions", params={"query": "title"}).json()["data"]
    assert found == []


def test_other_paths_are_passed_on(gateway: str, upstream: str) -> None:
    here, there = (httpx2.get(f"{url}/v1/models") for url in (gateway, upstream))
    assert here.json()["data"][0]["id"] == there.json()["data"][0]["id"]
    missing = httpx2.get(f"{gateway}/v1/nothing")
    assert missing.status_code == 404
    assert missing.json() == httpx2.get(f"{upstream}/v1/nothing").json()


@pytest.mark.parametrize("stream", [False, True])
def test_an_error_of_the_upstream_comes_in_its_own_words(
    gateway: str, upstream: str, stream: bool
) -> None:
    here, there = (
        chat(url, "wrong", said("Hi."), temperature=9, stream=stream) for url in (gateway, upstream)
    )
    assert here.status_code == there.status_code == 400
    assert here.json()["error"] == there.json()["error"]
    recalled = chat(gateway, "wrong", said("Hi again?")).json()["streamingllm"]["recalled"]
    assert recalled == []  # what failed is not kept


@pytest.mark.parametrize(
    ("content", "code"), [(b"{", "invalid_json"), (b"[]", "invalid_json"), (b"{}", None)]
)
def test_a_body_that_is_no_chat_is_refused(gateway: str, content: bytes, code: str | None) -> None:
    headers = {"x-session-id": "bad"}
    answer = httpx2.post(f"{gateway}/v1/chat/completions", content=content, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == code


def test_keys_do_not_share_sessions(gateway: str) -> None:
    def asked(key: str) -> list[str]:
        headers = {"authorization": f"Bearer {key}"}
        answer = chat(gateway, "shared", said(QUESTION), headers=headers).json()
        return [piece["text"] for piece in answer["streamingllm"]["recalled"]]

    chat(gateway, "shared", said(FACT), headers={"authorization": "Bearer one"})
    assert FACT in asked("one")
    assert asked("two") == []


def test_a_message_is_forgotten(gateway: str) -> None:
    chat(gateway, "forget", said(FACT))
    recalled = chat(gateway, "forget", said(QUESTION)).json()["streamingllm"]["recalled"]
    (found,) = (piece["message_id"] for piece in recalled if piece["text"] == FACT)
    url = f"{gateway}/v1/sessions/forget"
    left = httpx2.delete(f"{url}/messages/{found}").json()["messages"]
    assert FACT not in [message["text"] for message in left]
    assert len(left) == 3
    assert httpx2.delete(f"{url}/messages/{found}").status_code == 400
    after = chat(gateway, "forget", said("Is it called Napoleon?")).json()["streamingllm"]
    assert FACT not in [piece["text"] for piece in after["recalled"]]
    assert httpx2.delete(url).json()["deleted"]
    assert httpx2.delete(url).status_code == 404


def test_an_upstream_that_is_not_there_is_named(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    with gateway_to(url, tmp_path) as gateway:
        answer = chat(gateway, "lost", said("Hi."))
    assert answer.status_code == 502
    assert answer.json()["error"]["code"] == "upstream_unreachable"


class BreaksOff(BaseHTTPRequestHandler):
    """Begin to answer and hang up, fail with a page of HTML, or answer nothing."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if body.get("seed") == 1:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"choices": []}')
            return
        if not body.get("stream"):
            self.send_response(503)
            self.end_headers()
            self.wfile.write(b"<html>out of order</html>")
            return
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("content-length", "10000")
        self.end_headers()
        chunk = {"choices": [{"index": 0, "delta": {"content": "half an "}}]}
        self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def broken(tmp_path: Path) -> Iterator[str]:
    """A gateway to a server that fails."""
    with ThreadingHTTPServer(("127.0.0.1", 0), BreaksOff) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with gateway_to(f"http://127.0.0.1:{server.server_port}", tmp_path) as address:
            yield address
        server.shutdown()


def test_a_failure_without_the_api_s_shape_gets_it_and_nothing_is_kept(
    broken: str, tmp_path: Path
) -> None:
    failed = chat(broken, "s", said("Hi."))
    assert failed.status_code == 503
    assert "out of order" in failed.json()["error"]["message"]
    empty = chat(broken, "s", said("Hi."), seed=1)
    assert empty.status_code == 502
    assert empty.json()["error"]["code"] == "upstream_failed"
    cut = chat(broken, "s", said("Hi."), stream=True)
    lines = [line for line in cut.text.splitlines() if line.startswith("data: ")]
    assert "half an " in lines[0]
    assert "error" in json.loads(lines[-1][6:])
    database = apsw.Connection(str(tmp_path / "gateway.sqlite"))
    assert [*database.execute("SELECT count(*) FROM messages")] == [(0,)]
