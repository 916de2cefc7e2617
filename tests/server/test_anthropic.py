"""POST /v1/messages against a real server."""

from __future__ import annotations

from typing import Any

import pytest

from tests.server.requests import Api

HELLO = [{"role": "user", "content": "Hello"}]


def message(api: Api, messages: Any = HELLO, **fields: Any) -> Any:
    body = {"model": api.model, "messages": messages, "max_tokens": 6, "temperature": 0, **fields}
    return api.post("/v1/messages", body)


def answer(api: Api, messages: Any = HELLO, **fields: Any) -> Any:
    response = message(api, messages, **fields)
    assert response.status_code == 200, response.text
    return response.json()


def test_chat_and_messages_give_the_same_answer(api: Api) -> None:
    chat = api.post(
        "/v1/chat/completions", {"messages": HELLO, "max_tokens": 6, "temperature": 0}
    ).json()
    assert answer(api)["content"][0]["text"] == chat["choices"][0]["message"]["content"]


def test_a_stream_joins_to_the_answer(api: Api) -> None:
    whole = answer(api)
    events = api.stream(
        "/v1/messages",
        {"model": api.model, "messages": HELLO, "max_tokens": 6, "temperature": 0, "stream": True},
    )
    assert [events[0]["type"], events[-1]["type"]] == ["message_start", "message_stop"]
    texts = [e["delta"]["text"] for e in events if e["type"] == "content_block_delta"]
    assert "".join(texts) == whole["content"][0]["text"]
    assert events[-2]["usage"] == whole["usage"]


def test_billing_blocks_that_change_do_not_change_the_session(api: Api) -> None:
    history: list[Any] = list(HELLO)
    sessions = set()
    for number in range(3):
        system = [
            {"type": "text", "text": f"x-anthropic-billing-header: cch={number};"},
            {"type": "text", "text": "Be kind."},
        ]
        body = answer(api, history, system=system)
        sessions.add(body["streamingllm"]["session_id"])
        history += [
            {"role": "assistant", "content": body["content"]},
            {"role": "user", "content": f"And {number}?"},
        ]
    assert len(sessions) == 1


def test_counted_tokens_are_those_that_are_fed(api: Api) -> None:
    counted = api.post("/v1/messages/count_tokens", {"model": api.model, "messages": HELLO})
    usage = answer(api)["usage"]
    assert counted.json()["input_tokens"] == (
        usage["input_tokens"] + usage["cache_read_input_tokens"]
    )


def test_thinking_that_has_no_effect_is_reported(api: Api) -> None:
    body = answer(api, thinking={"type": "enabled", "budget_tokens": 1024})
    assert "thinking" in body["streamingllm"]["ignored_fields"]


def test_an_answer_goes_on_from_a_last_assistant_message(api: Api) -> None:
    first = answer(api, [*HELLO, {"role": "assistant", "content": "Sure"}])
    text = first["content"][0]["text"]
    assert not text.startswith("Sure")
    history = [
        *HELLO,
        {"role": "assistant", "content": "Sure" + text},
        {"role": "user", "content": "And?"},
    ]
    second = answer(api, history)
    assert second["streamingllm"]["session_id"] == first["streamingllm"]["session_id"]


@pytest.mark.parametrize(
    ("fields", "status", "kind"),
    [
        ({"frobnicate": 1}, 400, "invalid_request_error"),
        ({"max_tokens": None}, 400, "invalid_request_error"),
        ({"model": "claude-of-another-server"}, 404, "not_found_error"),
        ({"tools": [{"type": "bash_20250124", "name": "bash"}]}, 400, "invalid_request_error"),
        ({"tool_choice": {"type": "any"}}, 400, "invalid_request_error"),
    ],
)
def test_errors_have_anthropics_shape(api: Api, fields: Any, status: int, kind: str) -> None:
    response = message(api, **fields)
    assert response.status_code == status
    assert response.json()["type"] == "error"
    assert response.json()["error"]["type"] == kind
