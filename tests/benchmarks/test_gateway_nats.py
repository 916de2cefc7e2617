"""Requests of a gateway as they are noted, and as they are compared with a stream."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx2
import pytest

from benchmarks.gateway_nats import (
    Renderer,
    dense_scores,
    estimated_prefill,
    lost,
    stream_scores,
    turns_of,
)
from benchmarks.gateway_results import prefilled, write_under
from benchmarks.recording_proxy import recording, usage_in
from streamingllm import LanguageModel, load_model
from tests.gateway.talking_upstream import SENTENCE, talking_upstream
from tests.reference.tiny_chat import write_tiny_chat


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return load_model(write_tiny_chat(tmp_path_factory.mktemp("tiny")), dtype="float64")


def said(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": content}


def transcript(num_turns: int, num_left_out: int) -> dict[str, Any]:
    """Turns in a row, the requests of which leave out some messages after the system prompt."""
    history, asked = [said("system", "Be brief.")], []
    for number in range(num_turns):
        history.append(said("user", f"Tell me about {number}."))
        first = min(1 + num_left_out, len(history) - 1)
        sent = [history[0], *history[first:]]
        asked.append({"messages": sent, "max_tokens": 8, "status": 400})  # found too long
        asked.append({"messages": sent, "max_tokens": 8, "status": 200})
        history.append(said("assistant", f"It is {number}!"))
    return {"history": history, "asked": asked}


def nats(lm: LanguageModel, told: dict[str, Any]) -> Any:
    renderer, turns = Renderer(lm), turns_of(told)
    dense = [dense_scores(lm, renderer, turn) for turn in turns]
    stream, _ = stream_scores(lm, renderer, turns, 512)
    return lost(stream, dense)


def test_nothing_is_lost_while_nothing_is_left_out(lm: LanguageModel) -> None:
    found = nats(lm, transcript(3, 0))
    for kind, tokens in (("questions", 3 * 16), ("answers", 3 * 8)):
        assert found[kind]["tokens"] == tokens  # a token is a byte
        assert found[kind]["lost"]["value"] == pytest.approx(0, abs=1e-6)


def test_what_is_left_out_changes_the_scores(lm: LanguageModel) -> None:
    assert nats(lm, transcript(3, 2))["answers"]["lost"]["value"] != pytest.approx(0, abs=1e-6)


def test_the_prefill_is_estimated_by_common_beginnings(lm: LanguageModel) -> None:
    told, renderer = transcript(3, 0), Renderer(lm)
    answered = [one for one in told["asked"] if one["status"] == 200]
    lengths = [len(renderer.ids(renderer.prompt(one["messages"]))) for one in answered]
    assert estimated_prefill(renderer, answered) == {"turns": lengths[-1], "warming": 0}
    again = [*answered, {**answered[-1], "max_tokens": 1}]
    assert estimated_prefill(renderer, again) == {"turns": lengths[-1], "warming": 1}


def test_a_proxy_notes_requests_and_passes_answers_on() -> None:
    body = {"messages": [said("user", "Hi.")], "max_tokens": 4, "stream": True}
    with talking_upstream() as url, recording(0, url) as proxy:
        answer = httpx2.post(f"{proxy.url}/v1/chat/completions", json=body)
        assert httpx2.get(f"{proxy.url}/v1/models").json()["data"][0]["id"] == "talker"
    assert SENTENCE.split()[-1] in answer.text
    assert proxy.asked == [
        {"messages": body["messages"], "max_tokens": 4, "status": 200, "usage": None}
    ]


def test_what_a_server_counted_is_found(tmp_path: Path) -> None:
    usage = {"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": 4}}
    streamed = f"data: {{}}\n\ndata: {json.dumps({'usage': usage})}\n\ndata: [DONE]\n"
    assert usage_in(streamed.encode()) == usage_in(json.dumps({"usage": usage}).encode()) == usage
    assert prefilled([usage, usage]) == 10
    assert prefilled([usage, {"prompt_tokens": 9}]) is prefilled([]) is prefilled([None]) is None
    path = tmp_path / "results.json"
    for name, found in (("a", {"x": 1}), ("b", {"x": 2}), ("a", {"y": 3})):
        write_under(path, name, found)
    assert json.loads(path.read_text()) == {"a": {"x": 1, "y": 3}, "b": {"x": 2}}
