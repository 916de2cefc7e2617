"""Serve with a memory: answers say what was put back into the window."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streamingllm import LanguageModel
from streamingllm.errors import ConfigError
from streamingllm.server.settings import ServerSettings
from tests.server.requests import Api
from tests.server.serving import serving, small_app

SECRET = "The hamster is called Napoleon."


@pytest.fixture(scope="module")
def memory_server(
    tiny_chat: LanguageModel, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The address of a server with a memory, whose sessions see 600 tokens."""
    folder = tmp_path_factory.mktemp("memory")
    size = {"cache_size": 600, "recall_share": 0.4, "max_rewind_tokens": 300}
    fields = {**size, "recall_removal": "rewind", "max_pinned_tokens": 100}
    with serving(small_app(tiny_chat, folder, memory=True, **fields)) as url:
        yield url


def test_answers_say_what_was_recalled(memory_server: str) -> None:
    api = Api(memory_server)

    def say(text: str, **fields: Any) -> Any:
        body = {"model": "tiny", "messages": [{"role": "user", "content": text}], "max_tokens": 8}
        headers = {"x-session-id": "here"}
        if fields.get("stream"):
            return api.stream("/v1/chat/completions", {**body, **fields}, headers)
        response = api.post("/v1/chat/completions", {**body, **fields}, headers)
        assert response.status_code == 200, response.text
        return response.json()["streamingllm"]

    assert say(SECRET)["recalled"] == []
    for number in range(20):
        assert say(f"And now a word about place {number}.")["unknown_words"] == []
    found = say("Who is Napoleon?")
    first = found["recalled"][0]
    messages = api.get("/v1/sessions/here").json()["messages"]
    (told,) = [message for message in messages if message["id"] == first["message_id"]]
    assert told["text"] == first["text"] == SECRET
    assert first["score"] > 0
    assert first["position"] < found["pinned_tokens"] + found["forgotten_tokens"]
    assert first["speaker"] == "user"
    assert first["words"] == ["napoleon"]
    assert found["not_found"] is False
    assert found["searches"] == found["evicted_results"] == []
    last = say("Who is Napoleon?", stream=True)[-2]
    assert last["streamingllm"]["recalled"][0]["text"] == SECRET
    unknown = say("Where is the crocodile?")
    assert unknown["unknown_words"] == ["crocodil"]
    assert unknown["not_found"] is True
    api.close()


def test_answers_without_a_memory_say_nothing_of_it(api: Api) -> None:
    body = {"model": "tiny", "messages": [{"role": "user", "content": "a"}], "max_tokens": 2}
    fields = api.post("/v1/chat/completions", body).json()["streamingllm"]
    assert "recalled" not in fields
    assert "unknown_words" not in fields


def test_a_memory_goes_on_when_the_server_does_not_recall(
    tiny_chat: LanguageModel, tmp_path: Path
) -> None:
    size = {"cache_size": 600, "recall_share": 0.4, "max_rewind_tokens": 300}
    for number, is_on in enumerate((True, False, True)):
        with serving(small_app(tiny_chat, tmp_path, memory=is_on, **size)) as url:
            api = Api(url)
            body: dict[str, Any] = {"model": "tiny", "max_tokens": 8}
            texts = [SECRET, *(["And now another word about places."] * 20), "Who is Napoleon?"]
            for text in ([SECRET], texts[1:-1], texts[-1:])[number]:
                body["messages"] = [{"role": "user", "content": text}]
                headers = {"x-session-id": "here"}
                answer = api.post("/v1/chat/completions", body, headers).json()["streamingllm"]
            assert ("recalled" in answer) == is_on
            api.close()
    assert answer["recalled"][0]["text"] == SECRET


def test_facts_and_forgetting_have_routes(memory_server: str) -> None:
    api = Api(memory_server)
    path = "/v1/sessions/facts"
    body = {"model": "tiny", "messages": [{"role": "user", "content": SECRET}], "max_tokens": 4}
    assert api.post("/v1/chat/completions", body, {"x-session-id": "facts"}).status_code == 200
    told = api.get(path).json()["messages"][0]["id"]

    fact = api.post(f"{path}/facts", {"text": "He eats hay.", "message_id": told}).json()
    assert fact["object"] == "session.fact"
    assert fact["message_id"] == told
    fixed = api.patch(f"{path}/facts/{fact['id']}", {"text": "He eats seeds."}).json()
    assert fixed == {**fact, "text": "He eats seeds.", "pinned_at": fixed["pinned_at"]}
    detail = api.get(path).json()
    assert detail["facts"] == [fixed]
    assert detail["messages"][0]["text"].endswith("- He eats seeds.")
    assert detail["streamingllm"]["pinned_tokens"] > len("He eats seeds.")

    problem = api.post(f"{path}/facts", {"text": "too long " * 200})
    assert (problem.status_code, problem.json()["error"]["type"]) == (400, "invalid_request_error")
    assert "max_pinned_tokens=" in problem.json()["error"]["message"]
    assert api.patch(f"{path}/facts/none", {"text": "a"}).status_code == 404
    assert api.delete(f"{path}/facts/none").status_code == 404
    assert api.post(f"{path}/forget", {"message_ids": ["none"]}).status_code == 400
    assert api.post(f"{path}/forget", {"message_ids": []}).status_code == 400
    assert api.post("/v1/sessions/nobody/forget", {"message_ids": [told]}).status_code == 404

    left = api.post(f"{path}/forget", {"message_ids": [told]}).json()
    assert left["facts"] == []
    assert [message["role"] for message in left["messages"]] == ["assistant"]
    kept = api.post(f"{path}/facts", {"text": "Be brief."}).json()
    gone = api.delete(f"{path}/facts/{kept['id']}").json()
    assert gone == {"object": "session.fact.deleted", "id": kept["id"], "deleted": True}
    assert api.post("/v1/chat/completions", body, {"x-session-id": "facts"}).status_code == 200
    api.close()


@pytest.mark.parametrize(
    ("field", "value"), [("recall_removal", "never"), ("recall_share", 1.5), ("memory_tool", True)]
)
def test_settings_that_mean_nothing_are_refused(field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"{field}="):
        ServerSettings(**{field: value})
