"""Complaints about other servers, each by the issues that tell of it; see also tests/sessions."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from streamingllm import LanguageModel
from tests.server.open_responses import check_events
from tests.server.requests import Api
from tests.server.serving import CACHE_SIZE, NUM_SLOTS, serving, small_app

CHAT = "/v1/chat/completions"
RESPONSES = "/v1/responses"
END = "~"  # of each message of the tiny model's template


def chat(api: Api, *texts: str, session_id: str | None = None, **fields: Any) -> Any:
    """The answer to texts of the user and the assistant in turn."""
    roles = ("user", "assistant")
    messages = [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]
    headers = {"x-session-id": session_id} if session_id else None
    answer = api.post(CHAT, {"messages": messages, "max_tokens": 6, **fields}, headers)
    assert answer.status_code == 200, answer.text
    return answer


def said(answer: Any) -> str:
    """The text of an answer."""
    content = answer.json()["choices"][0]["message"]["content"]
    assert isinstance(content, str)
    return content


@pytest.fixture
def serve(tiny_chat: LanguageModel, tmp_path: Path) -> Callable[..., Any]:
    """Start a server with settings of its own."""

    @contextmanager
    def start(**settings: Any) -> Iterator[Api]:
        with serving(small_app(tiny_chat, tmp_path / "data", **settings)) as url:
            api = Api(url)
            try:
                yield api
            finally:
                api.close()

    return start


def test_a_full_context_evicts_goes_on_and_says_so(api: Api) -> None:
    """ggml-org/llama.cpp#17284: a full context kills the chat with a 400."""
    answer = chat(api, "word " * CACHE_SIZE)
    seen = answer.json()["streamingllm"]
    assert seen["seen_tokens"] > seen["visible_tokens"] <= CACHE_SIZE
    assert answer.json()["usage"]["evicted_tokens"] == seen["forgotten_tokens"] > 0
    assert f"forgotten={seen['forgotten_tokens']}" in answer.headers["x-streamingllm-visible"]
    again = chat(api, "go on", session_id=seen["session_id"])
    assert again.json()["streamingllm"]["seen_tokens"] > seen["seen_tokens"]


def test_a_turn_feeds_its_own_tokens_up_to_ten_times_the_window(api: Api) -> None:
    """lmstudio-ai/lmstudio-bug-tracker#1978, #1620: the chat is read again; a crash when full."""
    history: list[str] = []
    seen = 0
    while seen < 10 * CACHE_SIZE:
        question = f"Q{len(history)}?"
        history.append(question)
        body = chat(api, *history).json()
        history.append(body["choices"][0]["message"]["content"])
        usage = body["usage"]
        fed = usage["prompt_tokens"] - usage["prompt_tokens_details"]["cached_tokens"]
        # The question, its marks, and the end of the answer before it.
        assert fed <= len(f"{END}u:{question}{END}a:") + 1
        assert body["streamingllm"]["seen_tokens"] == seen + fed + usage["completion_tokens"]
        seen = body["streamingllm"]["seen_tokens"]


def test_forgetting_is_in_field_header_metric_and_page_and_spares_the_pinned_prompt(
    serve: Callable[..., Any],
) -> None:
    """ollama#14259, #3839, #17427, #17889: silent cuts, a lost head, an undocumented limit."""
    system = {"role": "system", "content": "The password is 7."}
    with serve() as api:
        question = {"role": "user", "content": "What is it? " * 20}
        body = {"messages": [system, question], "max_tokens": 4}
        answer = api.post(CHAT, body, {"x-session-id": "s"})
        field = answer.json()["streamingllm"]
        forgotten = field["forgotten_tokens"]
        assert forgotten > 0
        assert field["pinned_tokens"] == len("s:The password is 7.~")
        assert f"forgotten={forgotten}" in answer.headers["x-streamingllm-visible"]
        assert f"streamingllm_evicted_tokens_total {forgotten}.0" in api.get("/metrics").text
        shown = api.get("/v1/sessions/s").json()  # what the page draws
        assert [message["visibility"] for message in shown["messages"]] == [
            *("visible", "partly", "visible")
        ]
        told = {k: v for k, v in shown["streamingllm"].items() if v is not None}
        assert told.items() <= field.items()
        assert shown["cache_size"] == CACHE_SIZE


def test_stored_responses_are_bounded_expire_and_are_deleted(serve: Callable[..., Any]) -> None:
    """vllm-project/vllm#48275: the store of responses grows without bound."""

    def create(api: Api) -> str:
        made = api.post(RESPONSES, {"input": "hi", "max_output_tokens": 2}).json()["id"]
        assert isinstance(made, str)
        return f"{RESPONSES}/{made}"

    with serve(max_responses=2) as api:
        paths = [create(api) for _ in range(4)]
        assert [api.get(path).status_code for path in paths] == [404, 404, 200, 200]
    with serve(max_responses=2) as api:  # it is on disk
        assert api.get(paths[-1]).status_code == 200
        assert api.delete(paths[-1]).status_code == 200
        assert api.get(paths[-1]).status_code == 404
    with serve(response_ttl_seconds=1e-9) as api:
        assert api.get(create(api)).status_code == 404


def test_store_and_previous_response_are_honoured_or_refused(api: Api) -> None:
    """BerriAI/litellm#26147, ollama#15404: store is off, and a previous response is ignored."""
    body = {"input": "hi", "max_output_tokens": 2}
    first = api.post(RESPONSES, body).json()
    assert first["store"] is True
    assert api.get(f"{RESPONSES}/{first['id']}").json() == first
    second = api.post(RESPONSES, {**body, "previous_response_id": first["id"]}).json()
    cached = second["usage"]["input_tokens_details"]["cached_tokens"]
    assert cached == first["usage"]["total_tokens"]
    apart = api.post(RESPONSES, {**body, "store": False}).json()
    for unknown in ("resp_none", apart["id"]):
        refused = api.post(RESPONSES, {**body, "previous_response_id": unknown})
        assert refused.status_code == 404
        assert refused.json()["error"]["code"] == "previous_response_not_found"


def test_concurrent_answers_equal_those_alone(server: str) -> None:
    """ggml-org/llama.cpp#27148: under load the prompt cache restores another conversation."""

    def talk(name: str) -> list[str]:
        api = Api(server)
        topic = name.split("-")[-1]
        answers = [said(chat(api, f"{topic} {n}? " * 3, session_id=name)) for n in range(5)]
        api.close()
        return answers

    topics = [f"topic{n}" for n in range(2 * NUM_SLOTS)]
    with ThreadPoolExecutor(len(topics)) as pool:
        together = list(pool.map(talk, (f"together-{topic}" for topic in topics)))
    assert together == [talk(f"alone-{topic}") for topic in topics]


@pytest.mark.parametrize("where", ["prefill", "decode"])
def test_a_client_that_leaves_costs_neither_slot_nor_session(
    serve: Callable[..., Any], where: str
) -> None:
    """llama.cpp#24496, ik_llama.cpp#1929, sglang#36475: a slot is kept, a session lost."""
    with serve(max_streams=1, on_disconnect="rollback") as api:
        alone = [said(chat(api, f"q{n}?", session_id="alone")) for n in range(3)]
        there = [said(chat(api, f"q{n}?", session_id="left")) for n in range(2)]
        content = "word " * 20_000 if where == "prefill" else "x"
        body = {"messages": [{"role": "user", "content": content}], "max_tokens": 10**9}
        body |= {"stream": where == "decode", "ignore_eos": True}
        api.leave(CHAT, body, {"x-session-id": "left"})
        there.append(said(chat(api, "q2?", session_id="left")))
        assert there == alone
        assert "streamingllm_running_turns 0.0" in api.get("/metrics").text


def test_sessions_with_pinned_prompts_give_way_to_one_another(serve: Callable[..., Any]) -> None:
    """sgl-project/sglang#27024: pinned sessions deadlock."""
    system = {"role": "system", "content": "x" * 26}
    with serve(max_streams=2, host_memory=0, disk=0) as api:

        def talk(name: str) -> list[int]:
            api_of_one = Api(str(api.url))
            statuses = []
            for number in range(4):
                messages = [system, {"role": "user", "content": f"q{number}?"}]
                body = {"messages": messages, "max_tokens": 4}
                statuses.append(api_of_one.post(CHAT, body, {"x-session-id": name}).status_code)
            api_of_one.close()
            return statuses

        with ThreadPoolExecutor(6) as pool:
            assert [*pool.map(talk, "abcdef")] == [[200] * 4] * 6


def test_a_reload_finds_its_answer_a_stop_is_a_call_and_prefill_pings(
    serve: Callable[..., Any],
) -> None:
    """llama.cpp#21754, #23226, #26093: a reload loses the answer; prefill is silent."""
    with serve(ping_seconds=0.001, turn_seconds=60.0) as api:
        body = {"input": "hi", "background": True, "stream": True, "top_logprobs": 0}
        endless = {"max_output_tokens": 10**6, "temperature": 1.9, "seed": 3}
        with httpx2.stream("POST", f"{api.url}{RESPONSES}", json={**body, **endless}) as reading:
            lines = (line for line in reading.iter_lines() if line.startswith("data: {"))
            first = [json.loads(next(lines)[6:]) for _ in range(6)]
        path = f"{RESPONSES}/{first[0]['response']['id']}"
        assert api.post(f"{path}/cancel", {}).json()["status"] in ("cancelled", "completed")
        whole = api.events_of(f"{path}?stream=true")
        check_events(whole)
        assert whole[: len(first)] == first
        assert api.events_of(f"{path}?stream=true&starting_after=5") == whole[6:]
        long = {"messages": [{"role": "user", "content": "word " * 2000}], "stream": True}
        assert api.post(CHAT, {**long, "max_tokens": 2}).text.count(": ping\n\n") > 0


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, {"streamingllm": {"truncation": "disabled"}, "max_tokens": 2}),
        ("/v1/messages", {"streamingllm": {"truncation": "disabled"}, "max_tokens": 2}),
        (RESPONSES, {"truncation": "disabled"}),
    ],
)
def test_an_error_of_a_full_context_has_the_words_that_agents_know(
    api: Api, path: str, body: dict[str, Any]
) -> None:
    """ik_llama.cpp#2051: agents compact only if the error has the known words."""
    message = {"role": "user", "content": "word " * CACHE_SIZE}
    asked = "input" if path == RESPONSES else "messages"
    refused = api.post(path, {"model": api.model, asked: [message], **body})
    assert refused.status_code == 400
    assert "exceeds the context size" in refused.json()["error"]["message"]
    if path != "/v1/messages":  # its shape has no code
        assert refused.json()["error"]["code"] == "context_length_exceeded"
