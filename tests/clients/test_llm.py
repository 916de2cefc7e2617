"""The llm package with our plugin, as they are installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import llm
import pytest

from tests.clients.conftest import MODEL

NAME = f"streamingllm/{MODEL}"


@pytest.fixture
def model(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("STREAMINGLLM_URL", url)
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path))
    return llm.get_model(NAME)


def run(*arguments: str, url: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).with_name("llm"), *arguments],
        env={**os.environ, "LLM_USER_PATH": str(folder), "STREAMINGLLM_URL": url},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )


def cost_of(response: Any) -> int:
    """The tokens that were fed for an answer."""
    assert response.input_tokens is not None
    return int(response.input_tokens) - int(response.token_details["cached_tokens"])


def test_a_stream_joins_to_the_answer(model: Any) -> None:
    options = {"temperature": 0, "max_tokens": 8}
    pieces = list(model.prompt("Say hello.", **options))
    assert len(pieces) > 1
    assert "".join(pieces) == model.prompt("Say hello.", stream=False, **options).text()


async def test_the_async_model_answers_as_the_other(model: Any) -> None:
    options = {"temperature": 0, "max_tokens": 8}
    answer = await llm.get_async_model(NAME).prompt("Say hello.", **options)
    assert await answer.text() == model.prompt("Say hello.", **options).text()


def test_a_conversation_sends_only_what_is_new(model: Any) -> None:
    conversation = model.conversation()
    conversation.prompt("Say hello. " * 20, system="Be brief.", max_tokens=8).text()
    response = conversation.prompt("And again?", max_tokens=8, eviction="turn")
    response.text()
    seen = response.response_json["streamingllm"]
    assert seen["session_id"] == f"llm-{conversation.id}"
    assert seen["forgotten_tokens"] == 0
    assert 0 < cost_of(response) < 20


def test_a_history_of_elsewhere_is_sent_whole(model: Any) -> None:
    first = model.conversation()
    first.prompt("Say hello.", max_tokens=8).text()
    other = model.conversation()
    other.responses = list(first.responses)
    response = other.prompt("And again?", max_tokens=8)
    response.text()
    assert response.response_json["streamingllm"]["first_visible_message"] == 0
    whole = first.prompt("And again?", max_tokens=8)
    whole.text()
    assert response.input_tokens == whole.input_tokens


def test_an_answer_follows_a_schema(model: Any) -> None:
    schema = llm.schema_dsl("name, population int")
    answer = model.prompt("Name a city.", schema=schema, max_tokens=100, temperature=0)
    assert isinstance(json.loads(answer.text())["population"], int)


def test_a_conversation_is_continued_by_another_process(url: str, tmp_path: Path) -> None:
    asked = run("-m", NAME, "-o", "max_tokens", "8", "Say hello.", url=url, folder=tmp_path)
    assert asked.returncode == 0, asked.stderr
    asked = run("-c", "And again?", url=url, folder=tmp_path)
    assert asked.returncode == 0, asked.stderr
    logs = json.loads(run("logs", "-n", "2", "--json", url=url, folder=tmp_path).stdout)
    first, second = sorted(logs, key=lambda log: log["datetime_utc"])
    seen = [log["response_json"]["streamingllm"] for log in (first, second)]
    assert seen[0]["session_id"] == seen[1]["session_id"] == f"llm-{first['conversation_id']}"
    fed = second["input_tokens"] - json.loads(second["token_details"])["cached_tokens"]
    assert fed < 20


def test_a_missing_server_is_reported(tmp_path: Path) -> None:
    asked = run("-m", "streamingllm", "Hi", url="http://127.0.0.1:9", folder=tmp_path)
    assert asked.returncode == 1
    assert "streamingllm serve" in asked.stderr


def test_an_option_that_is_wrong_is_refused(model: Any) -> None:
    with pytest.raises(llm.ModelError, match="temperature"):
        model.prompt("Hi", temperature=9).text()
