"""The openai package through the gateway, before our server and before llama.cpp's.

`STREAMINGLLM_LLAMA_CPP` is an interpreter that has xllamacpp, `STREAMINGLLM_GGUF` a model for it.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import APIStatusError, OpenAI

from tests.clients.conftest import MODEL, _free_port, _wait_until_ready

FACT = "My hamster is called Napoleon."
QUESTION = "What is the name of my hamster?"
FILLER = "Tell me in one sentence about the number {}."
LLAMA_CPP = Path(__file__).parents[2] / "benchmarks" / "llama_cpp_server.py"


@pytest.fixture(scope="module", params=["streamingllm", "llama.cpp"])
def upstream(request: pytest.FixtureRequest, url: str) -> Iterator[str]:
    """The address of a server."""
    if request.param == "streamingllm":
        yield url
        return
    python, model = (os.environ.get(f"STREAMINGLLM_{name}") for name in ("LLAMA_CPP", "GGUF"))
    if python is None or model is None:
        pytest.skip("STREAMINGLLM_LLAMA_CPP and STREAMINGLLM_GGUF are not set")
    port = _free_port()
    command = [python, str(LLAMA_CPP), model, str(port), "1", "1024", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        while not server.stdout.readline().startswith("ready"):
            assert server.poll() is None, "llama.cpp's server ended"
        yield f"http://127.0.0.1:{port}"
        server.kill()


@pytest.fixture(scope="module")
def client(upstream: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAI]:
    """A client of a gateway to that server."""
    folder, port = tmp_path_factory.mktemp("gateway"), _free_port()
    command = shlex.split(os.environ.get("STREAMINGLLM_COMMAND", "streamingllm"))
    arguments = ["gateway", "--upstream", upstream, "--port", str(port), "--data-dir", str(folder)]
    with (folder / "gateway.log").open("wb") as log:
        gateway = subprocess.Popen([*command, *arguments], stdout=log, stderr=log)
    try:
        address = f"http://127.0.0.1:{port}"
        _wait_until_ready(address, gateway, folder / "gateway.log")
        yield OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
    finally:
        gateway.terminate()
        gateway.wait(60)


def ask(client: OpenAI, session: str, *texts: str, **fields: Any) -> Any:
    """Send messages of a user and, in turns, of an assistant."""
    roles = ("user", "assistant")
    messages: Any = [{"role": roles[n % 2], "content": text} for n, text in enumerate(texts)]
    return client.chat.completions.create(
        model=MODEL,
        messages=messages,
        max_tokens=12,
        temperature=0,
        extra_headers={"x-session-id": session},
        **fields,
    )


def recalled(answer: Any) -> list[str]:
    return [piece["text"] for piece in answer.streamingllm["recalled"]]


def test_a_client_that_sends_its_last_message_gets_what_it_said_before(client: OpenAI) -> None:
    ask(client, "last", FACT)
    for number in range(3):
        ask(client, "last", FILLER.format(number))
    answer = ask(client, "last", QUESTION)
    assert FACT in recalled(answer)
    assert answer.choices[0].message.content


def test_a_client_that_sends_everything_gets_nothing_twice(client: OpenAI) -> None:
    said = [FACT]
    for text in (FILLER.format(1), QUESTION):
        said += [ask(client, "all", *said).choices[0].message.content, text]
    assert recalled(ask(client, "all", *said)) == []
    assert recalled(ask(client, "all", QUESTION)).count(FACT) == 1


def test_a_stream_ends_with_what_was_recalled(client: OpenAI) -> None:
    ask(client, "stream", FACT)
    chunks = list(ask(client, "stream", QUESTION, stream=True))
    (end,) = [chunk for chunk in chunks if chunk.choices and chunk.choices[0].finish_reason]
    assert FACT in recalled(end)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)


def test_an_error_of_the_server_is_the_client_s_exception(client: OpenAI) -> None:
    with pytest.raises(APIStatusError) as refused:
        ask(client, "wrong", "Hi.", extra_body={"temperature": "hot"})
    assert refused.value.status_code in (400, 500)  # llama.cpp answers 500
    assert refused.value.body
    assert recalled(ask(client, "wrong", "Hi?")) == []


def test_a_request_that_names_no_session_is_found_by_its_transcript(client: OpenAI) -> None:
    said = "Hi, I am somebody new."
    messages: Any = [{"role": "user", "content": said}]
    answer: Any = client.chat.completions.create(model=MODEL, messages=messages, max_tokens=4)
    messages += [
        {"role": "assistant", "content": answer.choices[0].message.content},
        {"role": "user", "content": "Who am I?"},
    ]
    again: Any = client.chat.completions.create(model=MODEL, messages=messages, max_tokens=4)
    assert answer.streamingllm["session_id"] == again.streamingllm["session_id"]
    assert [model.id for model in client.models.list()]
