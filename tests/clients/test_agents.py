"""openai-agents and pydantic-ai over chat completions, as they are installed."""

from __future__ import annotations

from typing import Any

from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    Runner,
    SQLiteSession,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI
from pydantic import BaseModel
from pydantic_ai import Agent as PydanticAgent
from pydantic_ai import NativeOutput
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from tests.clients.conftest import MODEL

set_tracing_disabled(True)


class City(BaseModel):
    """A city."""

    name: str


@function_tool
def get_weather(city: str) -> str:
    """Get the current weather of a city."""
    return f"sunny in {city}"


def agent_of(openai_url: str, **fields: Any) -> Agent[Any]:
    client = AsyncOpenAI(base_url=openai_url, api_key="none", max_retries=0)
    settings = {"temperature": 0, "max_tokens": 60, **fields.pop("settings", {})}
    return Agent(
        name="assistant",
        instructions="Be brief.",
        model=OpenAIChatCompletionsModel(MODEL, client),
        model_settings=ModelSettings(**settings),
        **fields,
    )


def pydantic_agent(openai_url: str, **fields: Any) -> PydanticAgent[None, Any]:
    model = OpenAIChatModel(MODEL, provider=OpenAIProvider(base_url=openai_url, api_key="none"))
    settings: Any = {"temperature": 0, "max_tokens": 60}
    return PydanticAgent(model, model_settings=settings, instructions="Be brief.", **fields)


async def test_an_agent_keeps_its_session(openai_url: str) -> None:
    agent, session = agent_of(openai_url), SQLiteSession("chat")
    first = await Runner.run(agent, "Say hello.", session=session)
    second = await Runner.run(agent, "And again?", session=session)
    assert first.final_output
    assert second.final_output
    usage = second.context_wrapper.usage
    assert usage.input_tokens_details.cached_tokens > 0


async def test_an_agent_calls_a_tool(openai_url: str) -> None:
    agent = agent_of(openai_url, tools=[get_weather], settings={"tool_choice": "required"})
    result = await Runner.run(agent, "What is the weather in Paris?", max_turns=4)
    kinds = [item.type for item in result.new_items]
    assert "tool_call_item" in kinds
    assert "tool_call_output_item" in kinds


async def test_an_agent_streams(openai_url: str) -> None:
    result = Runner.run_streamed(agent_of(openai_url), "Say hello.")
    kinds = {event.type async for event in result.stream_events()}
    assert "raw_response_event" in kinds
    assert result.final_output


async def test_pydantic_ai_goes_on_with_a_history(openai_url: str) -> None:
    agent = pydantic_agent(openai_url)
    first = await agent.run("Say hello.")
    second = await agent.run("And again?", message_history=first.all_messages())
    assert second.output
    assert second.usage.cache_read_tokens > 0


async def test_pydantic_ai_streams(openai_url: str) -> None:
    async with pydantic_agent(openai_url).run_stream("Say hello.") as result:
        pieces = [piece async for piece in result.stream_text(delta=True)]
    assert len(pieces) > 1


async def test_pydantic_ai_reads_an_object(openai_url: str) -> None:
    agent = pydantic_agent(openai_url, output_type=NativeOutput(City))
    assert isinstance((await agent.run("Name a city.")).output, City)
