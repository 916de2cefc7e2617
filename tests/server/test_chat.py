"""POST /v1/chat/completions against a real server."""

from __future__ import annotations

from typing import Any

import pytest

from tests.server.requests import Api, text_of

HELLO = [{"role": "user", "content": "Hello"}]


def chat(api: Api, messages: Any = HELLO, *, headers: Any = None, **fields: Any) -> Any:
    body = {"messages": messages, "max_tokens": 6, "temperature": 0, **fields}
    return api.post("/v1/chat/completions", body, headers=headers)


def answer(api: Api, messages: Any = HELLO, **fields: Any) -> Any:
    response = chat(api, messages, **fields)
    assert response.status_code == 200, response.text
    return response.json()


def test_the_history_is_found_again_and_only_what_is_new_is_fed(api: Api) -> None:
    history: list[Any] = list(HELLO)
    first = answer(api, history)
    history.append({"role": "assistant", "content": first["choices"][0]["message"]["content"]})
    history.append({"role": "user", "content": "And?"})
    second = answer(api, history)
    assert second["streamingllm"]["session_id"] == first["streamingllm"]["session_id"]
    assert second["usage"]["prompt_tokens_details"]["cached_tokens"] >= (
        first["streamingllm"]["visible_tokens"] - 1
    )
    grown = second["streamingllm"]["seen_tokens"] - first["streamingllm"]["seen_tokens"]
    fed = (
        second["usage"]["prompt_tokens"] - second["usage"]["prompt_tokens_details"]["cached_tokens"]
    )
    assert grown == fed + second["usage"]["completion_tokens"]


def test_a_named_session_needs_no_history_and_forgets_visibly(api: Api) -> None:
    for number in range(12):
        response = chat(
            api, [{"role": "user", "content": f"q{number}"}], headers={"x-session-id": "named"}
        )
        assert response.headers["x-session-id"] == "named"
    seen = response.json()["streamingllm"]
    assert seen["session_id"] == "named"
    assert seen["forgotten_tokens"] == seen["seen_tokens"] - seen["visible_tokens"] > 0
    assert seen["first_visible_message"] > 0
    assert response.json()["usage"]["evicted_tokens"] == seen["forgotten_tokens"]
    assert f"forgotten={seen['forgotten_tokens']}" in response.headers["x-streamingllm-visible"]


def test_a_stream_joins_to_the_answer(api: Api) -> None:
    whole = answer(api, max_tokens=9)
    for options in (None, {"include_usage": True}):
        chunks = api.stream(
            "/v1/chat/completions",
            {
                "messages": HELLO,
                "max_tokens": 9,
                "temperature": 0,
                "stream": True,
                "stream_options": options,
            },
        )
        assert chunks[-1] == "[DONE]"
        assert text_of(chunks) == whole["choices"][0]["message"]["content"]
        assert chunks[-2]["streamingllm"]["seen_tokens"] == whole["streamingllm"]["seen_tokens"]
        assert ("usage" in chunks[0]) == (options is not None)


def test_events_of_our_own_come_only_when_they_are_asked_for(api: Api) -> None:
    body = {"messages": HELLO, "max_tokens": 4, "stream": True}
    kinds = [
        [chunk.get("type") for chunk in api.stream("/v1/chat/completions", body, headers=h)[:-1]]
        for h in (None, {"x-streamingllm-events": "visibility"})
    ]
    assert set(kinds[0]) == {None}
    assert kinds[1].count("streamingllm.visibility") == 2


def test_a_stop_string_is_not_in_the_answer(api: Api) -> None:
    whole = answer(api, max_tokens=20)["choices"][0]["message"]["content"]
    cut = answer(api, max_tokens=20, stop=[whole[3]])["choices"][0]
    assert cut["message"]["content"] == whole[: whole.index(whole[3])]
    assert cut["finish_reason"] == "stop"


def test_a_seed_repeats_an_answer_and_samples_differ(api: Api) -> None:
    sampling = {"temperature": 2.0, "seed": 5, "n": 3, "max_tokens": 12}
    first, second = (
        [choice["message"]["content"] for choice in answer(api, **sampling)["choices"]]
        for _ in range(2)
    )
    assert first == second
    assert len(set(first)) == 3


def test_logprobs_stand_for_the_text(api: Api) -> None:
    body = answer(api, logprobs=True, top_logprobs=3)
    (choice,) = body["choices"]
    content = choice["logprobs"]["content"]
    assert len(content) == body["usage"]["completion_tokens"] == 6
    said = b"".join(bytes(entry["bytes"]) for entry in content).decode(errors="replace")
    assert said == choice["message"]["content"]
    assert all(entry["top_logprobs"][0]["token"] == entry["token"] for entry in content)


def test_a_bias_forbids_a_token(api: Api) -> None:
    content = answer(api, logprobs=True)["choices"][0]["logprobs"]["content"]
    token = content[0]["token"]
    token_id = api.token_id(bytes(content[0]["bytes"]))
    other = answer(api, logprobs=True, logit_bias={str(token_id): -100})
    assert other["choices"][0]["logprobs"]["content"][0]["token"] != token


def test_an_answer_follows_a_schema(api: Api) -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"enum": [1]}},
        "required": ["a"],
        "additionalProperties": False,
    }
    format_ = {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}
    (choice,) = answer(api, response_format=format_, max_tokens=40)["choices"]
    assert choice["message"]["content"].replace(" ", "") == '{"a":1}'
    assert choice["finish_reason"] == "stop"


def test_truncation_disabled_drops_nothing(api: Api) -> None:
    long = [{"role": "user", "content": "word " * 100}]
    assert answer(api, long)["streamingllm"]["forgotten_tokens"] > 0
    refused = chat(api, long, streamingllm={"truncation": "disabled"})
    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "context_length_exceeded"
    assert "exceeds the context size" in refused.json()["error"]["message"]


def test_a_side_task_leaves_the_session_as_it_is(api: Api) -> None:
    chat_id = {"X-OpenWebUI-Chat-Id": "side-chat"}
    first = answer(api, headers=chat_id)
    history = [
        *HELLO,
        {"role": "assistant", "content": first["choices"][0]["message"]["content"]},
        {"role": "user", "content": "Make a title."},
    ]
    title = answer(api, history, headers={**chat_id, "X-OpenWebUI-Task": "title_generation"})
    assert title["streamingllm"]["session_id"] != first["streamingllm"]["session_id"]
    after = answer(api, history, headers=chat_id)
    assert after["streamingllm"]["session_id"] == first["streamingllm"]["session_id"]
    assert after["streamingllm"]["seen_tokens"] > first["streamingllm"]["seen_tokens"]


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
def test_a_client_that_goes_away_ends_its_answer(api: Api, path: str, streams: bool) -> None:
    """The session is free again; an answer without end would hold it for ever."""
    headers = {"x-session-id": f"left{path.replace('/', '.')}{streams}"}
    body = {"model": api.model, "messages": HELLO, "max_tokens": 10**9, "stream": streams}
    api.leave(path, body, headers)
    after = chat(api, [{"role": "user", "content": "Still there?"}], headers=headers)
    assert after.status_code == 200


REFUSED: dict[str, dict[str, Any]] = {
    "frobnicate": {"frobnicate": 1},
    "temperature": {"temperature": 9},
    "functions": {"functions": [{"name": "f"}]},
    "n": {"n": "2"},
    "stop_token_ids": {"stop_token_ids": ["a"]},
}


def test_the_place_of_a_wrong_part_is_named(api: Api) -> None:
    part = {"type": "image_url", "image_url": {"url": "data:"}}
    text = {"type": "text", "text": "Look:"}
    error = chat(api, [*HELLO, {"role": "user", "content": [text, part]}]).json()["error"]
    assert error["param"] == "messages.1.content.1"
    assert "image_url" in error["message"]


@pytest.mark.parametrize("param", REFUSED)
def test_what_is_not_supported_is_named(api: Api, param: str) -> None:
    response = chat(api, **REFUSED[param])
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["param"].startswith(param)


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize(
    "fields",
    [
        {"logit_bias": {"99999999": 1}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": 3}}},
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "s", "schema": {"type": "no"}},
            }
        },
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
        {"messages": [{"role": "system", "content": "alone"}]},
        {"messages": []},
        {"streamingllm": {"session_id": "no/id"}},
        {"tool_choice": "required"},
    ],
)
def test_what_cannot_be_answered_is_refused_before_a_stream_begins(
    api: Api, fields: Any, streams: bool
) -> None:
    response = chat(api, **{"stream": streams, **fields})
    assert response.status_code == 400
    assert response.json()["error"]["message"]


def test_another_model_is_not_found(api: Api) -> None:
    response = chat(api, model="gpt-17")
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "model_not_found"
    assert answer(api, model=api.model)["model"] == api.model
