from __future__ import annotations

import json
from typing import Any

import pytest

from streamingllm.cluster.forwarding import ForwardedRequest
from streamingllm.cluster.routing_key import routing_key
from streamingllm.sessions.turn_attempt import TurnAttempt, new_id


def key_of(path: str = "/v1/chat/completions", body: Any = None, **headers: str) -> str:
    sent = tuple(
        (name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()
    )
    content = body if isinstance(body, bytes) else json.dumps(body or {}).encode()
    request = ForwardedRequest("POST", path, headers=sent, body=content)
    return routing_key(request, "turn", {"resp_1": "s"}.get)


@pytest.mark.parametrize(
    "request_of_s",
    [
        {"x_session_id": "s"},
        {"x_openwebui_chat_id": "s"},
        {"path": "/v1/sessions/s/rewind"},
        {"path": "/v1/conversations/s"},
        {"path": "/v1/responses/resp_1/cancel"},
        {"body": {"conversation": "s"}},
        {"body": {"conversation": {"id": "s"}}},
        {"body": {"previous_response_id": "resp_1"}},
        {"body": {"metadata": {"session_id": "s"}}},
        {"body": {"streamingllm": {"session_id": "s"}}},
    ],
)
def test_requests_that_name_a_session_have_its_key(request_of_s: dict[str, Any]) -> None:
    assert key_of(**request_of_s) == "s"


def test_a_history_that_grows_keeps_its_key() -> None:
    first = [{"role": "system", "content": "kind"}, {"role": "user", "content": "one"}]
    answer = {"role": "assistant", "content": "two"}
    more = [*first, answer, {"role": "user", "content": "three"}]
    other = [{"role": "user", "content": "another"}]
    keys = [key_of(body={"messages": messages}) for messages in (first, more, other)]
    assert keys[0] == keys[1] != keys[2]


def test_a_turn_that_makes_a_session_has_the_key_of_that_session() -> None:
    with TurnAttempt("turn", 0.0).running():
        made = new_id("sess_")
    assert key_of("/v1/responses", {"input": "hello"}) == made


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[1]", b'{"messages": 3}', b'{"messages": [1]}', b"[" * 100_000]
)
def test_what_is_no_request_has_some_key(body: bytes) -> None:
    assert key_of(body=body).startswith("sess_")
