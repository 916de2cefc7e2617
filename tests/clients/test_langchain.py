"""langchain-openai, as it is installed."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

from tests.clients.conftest import CACHE_SIZE, MODEL
from tests.clients.conversations import MAX_TOKENS, NUM_TURNS, Turn, check_turns, question


class City(BaseModel):
    """A city."""

    name: str


def get_weather(city: str) -> str:
    """Get the current weather of a city."""
    return f"sunny in {city}"


def model_of(openai_url: str, **fields: Any) -> ChatOpenAI:
    return ChatOpenAI(
        **{
            "base_url": openai_url,
            "api_key": "none",
            "model": MODEL,
            "temperature": 0,
            "max_tokens": MAX_TOKENS,
            "max_retries": 0,
            **fields,
        }
    )


def test_a_stream_joins_to_the_answer(openai_url: str) -> None:
    model = model_of(openai_url)
    whole = model.invoke("Say hello.")
    assert "".join(str(chunk.content) for chunk in model.stream("Say hello.")) == whole.content


def test_structured_output(openai_url: str) -> None:
    model = model_of(openai_url, max_tokens=100).with_structured_output(City, method="json_schema")
    assert isinstance(model.invoke("Name a city."), City)


def test_a_bound_tool_is_called(openai_url: str) -> None:
    model = model_of(openai_url, max_tokens=100).bind_tools([tool(get_weather)], tool_choice="any")
    answer = model.invoke("What is the weather in Paris?")
    assert isinstance(answer, AIMessage)
    assert answer.tool_calls[0]["name"] == "get_weather"


@pytest.mark.slow
@pytest.mark.parametrize("streams", [False, True])
def test_a_conversation_whose_history_is_sent_again(openai_url: str, streams: bool) -> None:
    model = model_of(openai_url, stream_usage=True)
    history: list[Any] = [SystemMessage("Answer in one word.")]
    turns = []
    for number in range(NUM_TURNS):
        history.append(HumanMessage(f"{question(number)} {streams}"))
        if streams:
            first, *others = list(model.stream(history))
            answer: Any = first
            for chunk in others:
                answer += chunk
        else:
            answer = model.invoke(history)
        history.append(AIMessage(answer.content))
        usage = answer.usage_metadata
        cached = usage["input_token_details"]["cache_read"]
        turns.append(Turn(usage["input_tokens"], cached, usage["output_tokens"]))
    check_turns(turns, CACHE_SIZE)
