"""Responses over HTTP, each checked against the specification."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.server.open_responses import check_compaction, check_events, check_response
from tests.server.requests import Api

PATH = "/v1/responses"


def create(api: Api, given: Any = "hi", **fields: Any) -> Any:
    answer = api.post(PATH, {"input": given, "max_output_tokens": 8, **fields})
    assert answer.status_code == 200, answer.text
    response = answer.json()
    check_response(response)
    return response


def refused(answer: Any, status: int, *words: str) -> Any:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert all(word in error["message"] for word in words), error
    return error


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def text_of(response: Any) -> str:
    items = [item for item in response["output"] if item["type"] == "message"]
    return "".join(part["text"] for item in items for part in item["content"])


def test_a_response_has_all_that_the_specification_asks_for(api: Api) -> None:
    response = create(
        api,
        [user("hi")],
        instructions="Be kind.",
        metadata={"a": "b"},
        temperature=0.5,
        user="ada",
        tools=[],
        include=[],
    )
    assert response["status"] in ("completed", "incomplete")
    assert (response["truncation"], response["tool_choice"]) == ("auto", "auto")
    assert response["metadata"] == {"a": "b"}
    assert response["temperature"] == 0.5
    usage = response["usage"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    seen = response["streamingllm"]
    assert seen["pinned_tokens"] == len("s:Be kind.~")
    assert seen["seen_tokens"] == usage["total_tokens"]


def test_a_stream_is_one_of_the_specification(api: Api) -> None:
    body = {"input": "hi", "max_output_tokens": 8, "stream": True}
    events = api.stream(PATH, body)
    check_events(events)
    last = events[-2]["response"]
    pieces = [e["delta"] for e in events[:-1] if e["type"] == "response.output_text.delta"]
    assert "".join(pieces) == text_of(last)
    assert api.get(f"{PATH}/{last['id']}").json() == last
    types = {event["type"] for event in events[:-1]}
    assert not any(kind.startswith("streamingllm") for kind in types)


def test_own_events_come_only_when_asked_for(api: Api) -> None:
    body = {"input": "hi", "max_output_tokens": 4, "stream": True}
    events = api.stream(PATH, body, {"x-streamingllm-events": "visibility"})
    assert any(e != "[DONE]" and e["type"] == "streamingllm.visibility" for e in events)


def test_logprobs_are_given_with_the_text(api: Api) -> None:
    response = create(api, top_logprobs=2, include=["message.output_text.logprobs"])
    (part,) = response["output"][0]["content"]
    assert len(part["logprobs"]) >= 1
    assert all(len(entry["top_logprobs"]) == 2 for entry in part["logprobs"])


def test_a_chain_goes_on_in_one_session_and_feeds_what_is_new(api: Api) -> None:
    first = create(api, "one")
    second = create(api, "two", previous_response_id=first["id"])
    sessions = {r["streamingllm"]["session_id"] for r in (first, second)}
    assert len(sessions) == 1
    usage = second["usage"]
    assert usage["input_tokens_details"]["cached_tokens"] == first["usage"]["total_tokens"]
    assert second["previous_response_id"] == first["id"]


def test_two_branches_grow_from_one_response(api: Api) -> None:
    first = create(api, "one")
    branches = [create(api, text, previous_response_id=first["id"]) for text in ("a", "b", "a")]
    ids = [branch["streamingllm"]["session_id"] for branch in branches]
    assert len(set(ids)) == 3
    assert text_of(branches[0]) == text_of(branches[2])
    more = create(api, "c", previous_response_id=branches[0]["id"])
    assert more["streamingllm"]["session_id"] == ids[0]


def test_a_conversation_holds_its_responses(api: Api) -> None:
    made = api.post("/v1/conversations", {"items": [user("before")]}).json()
    response = create(api, "now", conversation=made["id"])
    assert response["conversation"] == {"id": made["id"]}
    assert response["streamingllm"]["session_id"] == made["id"]
    again = create(api, "then", conversation={"id": made["id"]})
    listed = api.get(
        f"/v1/conversations/{made['id']}/items",
    ).json()["data"]
    texts = ["".join(p["text"] for p in item["content"]) for item in reversed(listed)]
    assert texts == ["before", "now", text_of(response), "then", text_of(again)]
    both = {"conversation": made["id"], "previous_response_id": response["id"], "input": "x"}
    refused(api.post(PATH, both), 400, "contradict")


def test_what_is_not_stored_cannot_be_found(api: Api) -> None:
    response = create(api, store=False)
    assert response["store"] is False
    refused(api.get(f"{PATH}/{response['id']}"), 404, "not found")
    body = {"input": "x", "previous_response_id": response["id"]}
    error = refused(api.post(PATH, body), 404, "not found")
    assert error["code"] == "previous_response_not_found"


def test_a_response_is_deleted(api: Api) -> None:
    response = create(api)
    assert api.delete(f"{PATH}/{response['id']}").json()["deleted"] is True
    refused(api.get(f"{PATH}/{response['id']}"), 404, "not found")
    refused(api.delete(f"{PATH}/{response['id']}"), 404, "not found")


def test_input_items_come_in_pages(api: Api) -> None:
    response = create(api, [user("a"), user("b"), user("c")])
    path = f"{PATH}/{response['id']}/input_items"
    page = api.get(f"{path}?order=asc&limit=2").json()
    assert [item["content"][0]["text"] for item in page["data"]] == ["a", "b"]
    assert page["has_more"] is True
    rest = api.get(f"{path}?order=asc&after={page['last_id']}").json()
    assert [item["content"][0]["text"] for item in rest["data"]] == ["c"]
    refused(api.get(f"{path}?after=nothing"), 404, "not found")


def test_a_background_response_can_be_heard_again(api: Api) -> None:
    body = {"input": "hi", "max_output_tokens": 30, "background": True}
    started = api.post(PATH, body).json()
    check_response(started)
    assert started["status"] in ("queued", "in_progress", "completed", "incomplete")
    path = f"{PATH}/{started['id']}"
    events = api.events_of(f"{path}?stream=true")
    check_events(events)
    later = api.events_of(f"{path}?stream=true&starting_after=3")
    assert later == events[4:]
    assert api.get(path).json() == events[-2]["response"]


def test_a_background_stream_is_one_stream(api: Api) -> None:
    body = {"input": "hi", "max_output_tokens": 8, "background": True, "stream": True}
    events = api.stream(PATH, body)
    check_events(events)
    assert events[-2]["response"]["background"] is True


def test_a_background_response_is_cancelled_and_keeps_its_text(api: Api) -> None:
    body = {"input": "hi", "max_output_tokens": 10**6, "background": True, "temperature": 1.5}
    for seed in range(20):  # an answer may end by itself first
        started = api.post(PATH, body | {"seed": seed}).json()
        path = f"{PATH}/{started['id']}"
        cancelled = api.post(f"{path}/cancel", {}).json()
        check_response(cancelled)
        if cancelled["status"] == "cancelled":
            break
    assert cancelled["status"] == "cancelled"
    assert api.get(path).json()["status"] == "cancelled"
    assert api.post(f"{path}/cancel", {}).json()["status"] == "cancelled"
    check_events(api.events_of(f"{path}?stream=true"))


def test_what_runs_in_the_foreground_is_not_cancelled_by_id(api: Api) -> None:
    response = create(api)
    refused(api.post(f"{PATH}/{response['id']}/cancel", {}), 400, "Cannot cancel a synchronous")
    refused(api.get(f"{PATH}/{response['id']}?stream=true"), 400, "background")
    refused(
        api.post(PATH, {"input": "x", "background": True, "store": False}),
        400,
        "background can only be used when `store` is true",
    )


@pytest.mark.parametrize("background", [False, True])
def test_what_does_not_fit_is_refused_when_nothing_may_be_dropped(
    api: Api, background: bool
) -> None:
    body = {"input": "x" * 100, "truncation": "disabled", "background": background}
    error = refused(api.post(PATH, body), 400, "exceeds the context size")
    assert error["code"] == "context_length_exceeded"


def test_a_compaction_stands_for_a_history(api: Api) -> None:
    first = create(api, "one")
    answer = api.post(f"{PATH}/compact", {"model": api.model, "previous_response_id": first["id"]})
    compacted = answer.json()
    check_compaction(compacted)
    go_on = [*compacted["output"], {"type": "message", **user("two")}]
    second = create(api, go_on)
    assert second["usage"]["input_tokens_details"]["cached_tokens"] >= 1
    plain = create(api, "two", previous_response_id=first["id"])
    assert text_of(second) == text_of(plain)
    whole = {"model": api.model, "input": [user("a"), user("b")]}
    answer = api.post(f"{PATH}/compact", whole)
    assert answer.status_code == 200, answer.text
    check_compaction(answer.json())
    refused(api.post(f"{PATH}/compact", {"input": "x"}), 400, "model")
    wrong = [{"type": "compaction", "encrypted_content": "nonsense"}, user("x")]
    refused(api.post(PATH, {"input": wrong}), 400, "compact again")


def test_input_tokens_are_counted(api: Api) -> None:
    counted = api.post(f"{PATH}/input_tokens", {"input": "hello", "instructions": "Be."}).json()
    assert counted == {"object": "response.input_tokens", "input_tokens": len("s:Be.~u:hello~a:")}


def test_results_need_their_calls(api: Api) -> None:
    output = {"type": "function_call_output", "call_id": "call_x", "output": "4"}
    refused(api.post(PATH, {"input": [user("x"), output]}), 400, "call_x")
    call = {"type": "function_call", "call_id": "call_x", "name": "f", "arguments": "{}"}
    reference = {"type": "item_reference", "id": "msg_nothing"}
    refused(api.post(PATH, {"input": [reference]}), 404, "msg_nothing")
    assert call["name"] == "f"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"unheard_of": 1}, "unheard_of"),
        ({"tools": [{"type": "web_search"}]}, "tools"),
        (
            {"input": [{"type": "message", "role": "user", "content": [{"type": "input_image"}]}]},
            "input",
        ),
        ({"temperature": 3}, "temperature"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"previous_response_id": "resp_nothing"}, "previous_response_id"),
        ({"conversation": "conv_nothing"}, None),
        ({"model": "other"}, "model"),
        ({"input": None}, "input"),
        ({"tool_choice": "required"}, None),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_cannot_be_done_is_refused_before_a_stream_begins(
    api: Api, fields: dict[str, Any], param: str | None, stream: bool
) -> None:
    answer = api.post(PATH, {"input": "hi", "stream": stream, **fields})
    assert answer.status_code in (400, 404)
    if param is not None:
        assert answer.json()["error"]["param"].startswith(param)


def test_times_are_of_now(api: Api) -> None:
    response = create(api)
    assert abs(response["created_at"] - time.time()) < 600


def test_a_coding_agent_may_tell_of_itself(api: Api) -> None:
    """Codex sends facts about itself, and its whole history with `store: false`."""
    agent = {
        "client_metadata": {"session_id": "s", "x-codex-turn-metadata": '{"turn_id": "t"}'},
        "prompt_cache_key": "s",
        "include": ["reasoning.encrypted_content"],
        "reasoning": {"summary": "auto"},
        "parallel_tool_calls": True,
        "store": False,
    }
    history: list[Any] = [
        {"type": "message", "role": "developer", "content": "Be brief."},
        {"type": "message", "role": "user", "content": "Hello"},
    ]
    first = api.post("/v1/responses", {"input": history, "max_output_tokens": 5, **agent})
    check_response(first.json())
    asked = {"type": "message", "role": "user", "content": "Again"}
    history = [*history, *first.json()["output"], asked]
    second = api.post("/v1/responses", {"input": history, "max_output_tokens": 5, **agent})
    assert second.headers["x-session-id"] == first.headers["x-session-id"]
    usage = second.json()["usage"]
    assert usage["input_tokens_details"]["cached_tokens"] > usage["input_tokens"] // 2
