"""POST /v1/completions against a real server."""

from __future__ import annotations

from typing import Any

import pytest

from tests.server.requests import Api


def complete(api: Api, prompt: Any, **fields: Any) -> Any:
    body = {"prompt": prompt, "max_tokens": 5, "temperature": 0, **fields}
    response = api.post("/v1/completions", body)
    assert response.status_code == 200, response.text
    return response.json()


def test_a_text_and_its_tokens_go_on_alike(api: Api) -> None:
    text = complete(api, "abc")
    tokens = complete(api, [api.token_id(letter.encode()) for letter in "abc"])
    assert text["choices"] == tokens["choices"]
    assert text["usage"]["prompt_tokens"] == 3
    assert text["usage"]["completion_tokens"] == 5


def test_several_prompts_answer_as_alone(api: Api) -> None:
    prompts = ["abc", "xyz", "12"]
    together = complete(api, prompts)["choices"]
    assert [choice["index"] for choice in together] == [0, 1, 2]
    alone = [complete(api, prompt)["choices"][0]["text"] for prompt in prompts]
    assert [choice["text"] for choice in together] == alone


def test_a_stream_joins_to_the_texts(api: Api) -> None:
    prompts = ["abc", "xyz"]
    whole = complete(api, prompts, echo=True)["choices"]
    chunks = api.stream(
        "/v1/completions",
        {"prompt": prompts, "max_tokens": 5, "temperature": 0, "echo": True, "stream": True},
    )
    assert chunks[-1] == "[DONE]"
    texts = {0: "", 1: ""}
    for chunk in chunks[:-1]:
        for choice in chunk["choices"]:
            texts[choice["index"]] += choice["text"]
    assert [texts[0], texts[1]] == [choice["text"] for choice in whole]
    assert texts[0].startswith("abc")


def test_no_token_is_generated_if_none_is_asked_for(api: Api) -> None:
    body = complete(api, "abc", max_tokens=0, echo=True)
    assert body["choices"][0]["text"] == "abc"
    assert body["usage"]["completion_tokens"] == 0


def test_logprobs_have_the_old_shape(api: Api) -> None:
    found = complete(api, "abc", logprobs=2)["choices"][0]["logprobs"]
    assert len(found["tokens"]) == len(found["token_logprobs"]) == len(found["text_offset"]) == 5
    assert all(len(top) == 2 for top in found["top_logprobs"])


@pytest.mark.parametrize(
    ("fields", "param"), [({"suffix": "x"}, "suffix"), ({"best_of": 3}, "best_of")]
)
def test_what_is_not_supported_is_named(api: Api, fields: Any, param: str) -> None:
    response = api.post("/v1/completions", {"prompt": "a", **fields})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": [[1], [10**6]]},
        {"prompt": ["a", "b" * 100], "streamingllm": {"truncation": "disabled"}},
        {"prompt": ["a", ""]},
    ],
)
@pytest.mark.parametrize("streams", [False, True])
def test_one_wrong_prompt_refuses_all_before_a_stream_begins(
    api: Api, fields: Any, streams: bool
) -> None:
    response = api.post("/v1/completions", {"max_tokens": 1, "stream": streams, **fields})
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"
