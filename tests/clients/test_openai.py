"""The openai package, as it is installed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from openai import AsyncOpenAI, BadRequestError, NotFoundError, OpenAI
from pydantic import BaseModel

from tests.clients.conftest import CACHE_SIZE, MODEL
from tests.clients.conversations import MAX_TOKENS, NUM_TURNS, Turn, check_turns, question

HELLO: Any = [{"role": "user", "content": "Say hello."}]
TOOLS: Any = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Get the current weather of a city.",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
            },
        },
    }
]


class City(BaseModel):
    name: str
    population: int


@pytest.fixture
def client(openai_url: str) -> OpenAI:
    return OpenAI(base_url=openai_url, api_key="none", max_retries=0)


@pytest.fixture
def async_client(openai_url: str) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=openai_url, api_key="none", max_retries=0)


def ask(client: OpenAI, messages: Any = HELLO, **fields: Any) -> Any:
    return client.chat.completions.create(
        **{"model": MODEL, "messages": messages, "max_tokens": 8, "temperature": 0, **fields}
    )


def test_the_model_is_listed(client: OpenAI) -> None:
    assert MODEL in [model.id for model in client.models.list()]
    assert client.models.retrieve(MODEL).id == MODEL
    with pytest.raises(NotFoundError):
        client.models.retrieve("another")


def test_a_stream_is_the_answer_in_pieces(client: OpenAI) -> None:
    whole = ask(client)
    chunks = list(ask(client, stream=True, stream_options={"include_usage": True}))
    pieces = [choice.delta.content or "" for chunk in chunks for choice in chunk.choices]
    assert "".join(pieces) == whole.choices[0].message.content
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens == 8
    assert chunks[-1].streamingllm["seen_tokens"] == whole.streamingllm["seen_tokens"]


def test_the_stream_helper_sees_every_event(client: OpenAI) -> None:
    with client.chat.completions.stream(
        model=MODEL, messages=HELLO, temperature=0, logprobs=True, top_logprobs=2, stop="!"
    ) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert {"chunk", "content.delta", "content.done", "logprobs.content.delta"} <= kinds
    assert final.choices[0].finish_reason == "stop"
    assert "!" not in (final.choices[0].message.content or "!")
    assert final.choices[0].logprobs is not None


def test_samples_differ_and_a_seed_repeats_them(client: OpenAI) -> None:
    sampling = {"n": 3, "temperature": 1.5, "seed": 7}
    first, second = (
        [choice.message.content for choice in ask(client, **sampling).choices] for _ in range(2)
    )
    assert first == second
    assert len(set(first)) > 1


def test_an_answer_follows_a_schema(client: OpenAI) -> None:
    parsed = client.chat.completions.parse(
        model=MODEL,
        messages=[{"role": "user", "content": "Name a city and its population."}],
        response_format=City,
        max_tokens=200,
        temperature=0,
    )
    assert isinstance(parsed.choices[0].message.parsed, City)


def test_a_tool_is_called_and_its_result_is_read(client: OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "What is the weather in Paris?"}]
    answer = ask(client, messages, tools=TOOLS, tool_choice="required", max_tokens=100)
    (choice,) = answer.choices
    assert choice.finish_reason == "tool_calls"
    (call,) = choice.message.tool_calls[:1]
    assert call.function.name == "get_weather"
    messages += [
        choice.message.model_dump(exclude_none=True),
        *(
            {"role": "tool", "tool_call_id": one.id, "content": "sunny, 20 degrees"}
            for one in choice.message.tool_calls
        ),
    ]
    after = ask(client, messages, tools=TOOLS, tool_choice="none")
    assert after.choices[0].message.content
    assert after.usage.prompt_tokens_details.cached_tokens >= answer.usage.prompt_tokens


def test_a_tool_call_streams(client: OpenAI) -> None:
    with client.chat.completions.stream(
        model=MODEL,
        messages=[{"role": "user", "content": "What is the weather in Paris?"}],
        tools=TOOLS,
        tool_choice="required",
        temperature=0,
        max_tokens=100,
    ) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion()
    assert "tool_calls.function.arguments.delta" in kinds
    assert final.choices[0].message.tool_calls[0].function.name == "get_weather"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"extra_body": {"frobnicate": 1}}, "frobnicate"),
        ({"temperature": 9}, "temperature"),
        ({"audio": {"format": "wav", "voice": "alloy"}}, "audio"),
    ],
)
def test_what_is_not_supported_is_named(client: OpenAI, fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequestError) as refused:
        ask(client, **fields)
    assert refused.value.param == param


def test_an_image_is_refused(client: OpenAI) -> None:
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    with pytest.raises(BadRequestError, match="text"):
        ask(client, [{"role": "user", "content": [part]}])


def test_completions_take_texts_and_token_ids(client: OpenAI) -> None:
    fields: Any = {"model": MODEL, "max_tokens": 4, "temperature": 0}
    texts = client.completions.create(prompt=["Once upon a time", "The sky is"], **fields)
    assert [choice.index for choice in texts.choices] == [0, 1]
    alone = client.completions.create(prompt="The sky is", logprobs=1, **fields)
    assert alone.choices[0].text == texts.choices[1].text
    assert alone.choices[0].logprobs is not None
    assert "".join(alone.choices[0].logprobs.tokens or ()) == alone.choices[0].text
    stream = client.completions.create(prompt="The sky is", stream=True, echo=True, **fields)
    echoed = "".join(choice.text for chunk in stream for choice in chunk.choices)
    assert echoed == "The sky is" + alone.choices[0].text
    assert client.completions.create(prompt=[1, 2, 3], **fields).choices[0].text


async def test_many_requests_at_once_answer_as_alone(async_client: AsyncOpenAI) -> None:
    async def one(number: int) -> str | None:
        answer = await async_client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": f"Say the number {number}."}],
            max_tokens=6,
            temperature=0,
        )
        return answer.choices[0].message.content

    together = await asyncio.gather(*(one(number) for number in range(6)))
    assert list(together) == [await one(number) for number in range(6)]


@pytest.mark.slow
def test_a_conversation_whose_history_is_sent_again(client: OpenAI) -> None:
    history: Any = [{"role": "system", "content": "Answer in one word."}]
    turns, sessions = [], set()
    for number in range(NUM_TURNS):
        history.append({"role": "user", "content": question(number)})
        answer = ask(client, history, max_tokens=MAX_TOKENS)
        history.append({"role": "assistant", "content": answer.choices[0].message.content})
        usage = answer.usage
        details = usage.prompt_tokens_details
        turns.append(Turn(usage.prompt_tokens, details.cached_tokens, usage.completion_tokens))
        sessions.add(answer.streamingllm["session_id"])
    check_turns(turns, CACHE_SIZE)
    assert len(sessions) == 1
    assert answer.streamingllm["forgotten_tokens"] > 0
    assert answer.streamingllm["first_visible_message"] > 0


@pytest.mark.slow
def test_a_named_session_takes_what_is_new_alone(client: OpenAI) -> None:
    headers = {"x-session-id": "test-openai-named"}
    turns = []
    for number in range(NUM_TURNS):
        raw = client.chat.completions.with_raw_response.create(
            model=MODEL,
            messages=[{"role": "user", "content": question(number)}],
            max_tokens=MAX_TOKENS,
            temperature=0,
            extra_headers=headers,
        )
        assert raw.headers["x-session-id"] == "test-openai-named"
        usage = raw.parse().usage
        assert usage is not None
        assert usage.prompt_tokens_details is not None
        cached = usage.prompt_tokens_details.cached_tokens or 0
        turns.append(Turn(usage.prompt_tokens, cached, usage.completion_tokens))
    check_turns(turns, CACHE_SIZE)
