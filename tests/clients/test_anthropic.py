"""The anthropic package, as it is installed."""

from __future__ import annotations

from typing import Any

import pytest
from anthropic import Anthropic, AsyncAnthropic, BadRequestError, NotFoundError

from tests.clients.conftest import CACHE_SIZE, MODEL
from tests.clients.conversations import MAX_TOKENS, NUM_TURNS, Turn, check_turns, question

HELLO: Any = [{"role": "user", "content": "Say hello."}]
TOOLS: Any = [
    {
        "name": "get_weather",
        "description": "Get the current weather of a city.",
        "input_schema": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    }
]


@pytest.fixture
def client(url: str) -> Anthropic:
    return Anthropic(base_url=url, api_key="none", max_retries=0)


def ask(client: Anthropic, messages: Any = HELLO, **fields: Any) -> Any:
    extra_body = {"temperature": 0, **fields.pop("extra_body", {})}
    return client.messages.create(
        **{"model": MODEL, "messages": messages, "max_tokens": 8, **fields}, extra_body=extra_body
    )


def test_the_model_is_listed(client: Anthropic) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]
    with pytest.raises(NotFoundError):
        ask(client, model="another")


def test_a_stream_is_the_answer_in_pieces(client: Anthropic) -> None:
    whole = ask(client)
    with client.messages.stream(
        model=MODEL, messages=HELLO, max_tokens=8, extra_body={"temperature": 0}
    ) as stream:
        pieces = list(stream.text_stream)
        final = stream.get_final_message()
    assert "".join(pieces) == whole.content[0].text
    assert len(pieces) > 1
    assert final.stop_reason == whole.stop_reason == "max_tokens"
    assert final.usage.output_tokens == whole.usage.output_tokens == 8


async def test_the_async_client_streams(url: str) -> None:
    client = AsyncAnthropic(base_url=url, api_key="none", max_retries=0)
    async with client.messages.stream(model=MODEL, messages=HELLO, max_tokens=8) as stream:
        final = await stream.get_final_message()
    assert final.usage.output_tokens > 0


def test_a_stop_sequence_is_named(client: Anthropic) -> None:
    answer = ask(client, stop_sequences=["o"], max_tokens=50)
    assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", "o")


def test_a_tool_is_called_and_its_result_is_read(client: Anthropic) -> None:
    messages: Any = [{"role": "user", "content": "What is the weather in Paris?"}]
    choice: Any = {"type": "any"}
    answer = ask(client, messages, tools=TOOLS, tool_choice=choice, max_tokens=100)
    assert answer.stop_reason == "tool_use"
    calls = [block for block in answer.content if block.type == "tool_use"]
    assert calls[0].name == "get_weather"
    assert isinstance(calls[0].input, dict)
    results = [
        {"type": "tool_result", "tool_use_id": call.id, "content": "sunny"} for call in calls
    ]
    messages += [
        {"role": "assistant", "content": [block.model_dump() for block in answer.content]},
        {"role": "user", "content": results},
    ]
    after = ask(client, messages, tools=TOOLS, tool_choice={"type": "none"})
    assert after.content[0].text
    assert after.usage.cache_read_input_tokens > answer.usage.cache_read_input_tokens


def test_tool_input_streams(client: Anthropic) -> None:
    with client.messages.stream(
        model=MODEL,
        messages=[{"role": "user", "content": "What is the weather in Paris?"}],
        tools=TOOLS,
        tool_choice={"type": "tool", "name": "get_weather"},
        max_tokens=100,
        extra_body={"temperature": 0},
    ) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_message()
    assert "input_json" in kinds
    assert final.content[-1].type == "tool_use"


def test_tokens_are_counted_before_they_are_fed(client: Anthropic) -> None:
    counted = client.messages.count_tokens(model=MODEL, messages=HELLO).input_tokens
    usage = ask(client).usage
    assert usage.input_tokens + usage.cache_read_input_tokens == counted


def test_a_model_that_does_not_reason_says_so(client: Anthropic) -> None:
    answer = ask(client, thinking={"type": "enabled", "budget_tokens": 1024})
    assert "thinking" in answer.streamingllm["ignored_fields"]


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"extra_body": {"frobnicate": 1}}, "frobnicate"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools"),
    ],
)
def test_what_is_not_supported_is_named(
    client: Anthropic, fields: dict[str, Any], name: str
) -> None:
    with pytest.raises(BadRequestError, match=name) as refused:
        ask(client, **fields)
    body: Any = refused.value.body
    assert body["type"] == "error"
    assert body["error"]["type"] == "invalid_request_error"


@pytest.mark.slow
def test_a_conversation_whose_history_is_sent_again(client: Anthropic) -> None:
    history: Any = []
    turns = []
    for number in range(NUM_TURNS):
        history.append({"role": "user", "content": question(number)})
        answer = ask(
            client,
            history,
            max_tokens=MAX_TOKENS,
            # Coding agents send such a block, which differs each time.
            system=[
                {"type": "text", "text": f"x-anthropic-billing-header: cch={number:x};"},
                {"type": "text", "text": "Answer in one word."},
            ],
        )
        history.append({"role": "assistant", "content": answer.content})
        usage = answer.usage
        cached = usage.cache_read_input_tokens
        turns.append(Turn(cached + usage.input_tokens, cached, usage.output_tokens))
    check_turns(turns, CACHE_SIZE)
    assert answer.streamingllm["forgotten_tokens"] > 0
