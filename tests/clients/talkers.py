"""One conversation by each client: a function asks a question and returns the counts."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import llm
from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIConversationsSession,
    OpenAIResponsesModel,
    Runner,
    SQLiteSession,
)
from anthropic import Anthropic
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI
from openai import AsyncOpenAI, OpenAI
from pydantic_ai import Agent as PydanticAgent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from tests.clients.conftest import MODEL
from tests.clients.conversations import MAX_TOKENS, Turn

INSTRUCTIONS = "Answer in one word."
Ask = Callable[[str], Turn]
AskAsync = Callable[[str], Awaitable[Turn]]
_SAMPLING: dict[str, Any] = {"max_tokens": MAX_TOKENS, "temperature": 0}


def openai_chat(url: str) -> Ask:
    client = OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    history: Any = [{"role": "system", "content": INSTRUCTIONS}]

    def ask(question: str) -> Turn:
        history.append({"role": "user", "content": question})
        answer: Any = client.chat.completions.create(model=MODEL, messages=history, **_SAMPLING)
        history.append({"role": "assistant", "content": answer.choices[0].message.content})
        return _of_chat(answer.usage)

    return ask


def openai_async_stream(url: str) -> AskAsync:
    client = AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    history: Any = [{"role": "system", "content": INSTRUCTIONS}]

    async def ask(question: str) -> Turn:
        history.append({"role": "user", "content": question})
        options: Any = {"stream": True, "stream_options": {"include_usage": True}}
        stream: Any = await client.chat.completions.create(
            model=MODEL, messages=history, **_SAMPLING, **options
        )
        text, usage = "", None
        async for chunk in stream:
            text += "".join(choice.delta.content or "" for choice in chunk.choices)
            usage = chunk.usage or usage
        history.append({"role": "assistant", "content": text})
        return _of_chat(usage)

    return ask


def openai_named_session(url: str) -> Ask:
    client = OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)

    def ask(question: str) -> Turn:
        answer: Any = client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": question}],
            extra_headers={"x-session-id": "long-named"},
            **_SAMPLING,
        )
        return _of_chat(answer.usage)

    return ask


def openai_responses(url: str) -> Ask:
    client = OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    chained: dict[str, Any] = {}
    options: Any = {"model": MODEL, "max_output_tokens": MAX_TOKENS, "temperature": 0}

    def ask(question: str) -> Turn:
        stream: Any = client.responses.create(
            input=question, instructions=INSTRUCTIONS, stream=True, **options, **chained
        )
        text = ""
        for event in stream:
            text += event.delta if event.type == "response.output_text.delta" else ""
        assert event.type in ("response.completed", "response.incomplete"), event
        assert event.response.output_text == text
        chained["previous_response_id"] = event.response.id
        return _of_response(event.response.usage)

    return ask


def openai_realtime(url: str) -> AskAsync:
    client = AsyncOpenAI(base_url=f"{url}/v1", api_key="none")
    opened: list[Any] = []

    async def ask(question: str) -> Turn:
        if not opened:
            opened.append(await client.realtime.connect(model=MODEL).enter())
        (connection,) = opened
        content: Any = [{"type": "input_text", "text": question}]
        await connection.conversation.item.create(
            item={"type": "message", "role": "user", "content": content}
        )
        await connection.response.create(response={"max_output_tokens": MAX_TOKENS})
        async for event in connection:
            assert event.type != "error", event
            if event.type == "response.done":
                break
        usage = event.response.usage
        cached = usage.input_token_details.cached_tokens
        return Turn(usage.input_tokens, cached, usage.output_tokens)

    return ask


def anthropic_messages(url: str) -> Ask:
    client = Anthropic(base_url=url, api_key="none", max_retries=0)
    history: Any = []

    def ask(question: str) -> Turn:
        history.append({"role": "user", "content": question})
        with client.messages.stream(
            model=MODEL,
            messages=history,
            system=INSTRUCTIONS,
            max_tokens=MAX_TOKENS,
            extra_body={"temperature": 0},
        ) as stream:
            answer = stream.get_final_message()
        history.append({"role": "assistant", "content": answer.content})
        cached = answer.usage.cache_read_input_tokens or 0
        return Turn(cached + answer.usage.input_tokens, cached, answer.usage.output_tokens)

    return ask


def langchain(url: str) -> Ask:
    fields: dict[str, Any] = {"base_url": f"{url}/v1", "api_key": "none", "max_retries": 0}
    model = ChatOpenAI(model=MODEL, **fields, **_SAMPLING)
    history: list[Any] = [SystemMessage(INSTRUCTIONS)]

    def ask(question: str) -> Turn:
        history.append(HumanMessage(question))
        answer: Any = model.invoke(history)
        history.append(AIMessage(answer.content))
        usage = answer.usage_metadata
        cached = usage["input_token_details"]["cache_read"]
        return Turn(usage["input_tokens"], cached, usage["output_tokens"])

    return ask


def openai_agents(url: str) -> AskAsync:
    client = AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    agent: Agent[Any] = Agent(
        name="assistant",
        instructions=INSTRUCTIONS,
        model=OpenAIChatCompletionsModel(MODEL, client),
        model_settings=ModelSettings(**_SAMPLING),
    )
    session = SQLiteSession("long")

    async def ask(question: str) -> Turn:
        result = await Runner.run(agent, question, session=session)
        usage = result.context_wrapper.usage
        cached = usage.input_tokens_details.cached_tokens
        return Turn(usage.input_tokens, cached, usage.output_tokens)

    return ask


def openai_agents_conversation(url: str) -> AskAsync:
    client = AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    agent: Agent[Any] = Agent(
        name="assistant",
        instructions=INSTRUCTIONS,
        model=OpenAIResponsesModel(MODEL, client),
        # It takes a response that is cut off for a failure, so that a word ends the answer.
        model_settings=ModelSettings(max_tokens=200, temperature=0, extra_body={"stop": [" "]}),
    )
    session = OpenAIConversationsSession(openai_client=client)

    async def ask(question: str) -> Turn:
        result = await Runner.run(agent, question, session=session)
        usage = result.context_wrapper.usage
        cached = usage.input_tokens_details.cached_tokens
        return Turn(usage.input_tokens, cached, usage.output_tokens)

    return ask


def pydantic_ai(url: str) -> AskAsync:
    provider = OpenAIProvider(base_url=f"{url}/v1", api_key="none")
    settings: Any = _SAMPLING
    agent = PydanticAgent(
        OpenAIChatModel(MODEL, provider=provider),
        model_settings=settings,
        instructions=INSTRUCTIONS,
    )
    history: list[Any] = []

    async def ask(question: str) -> Turn:
        result = await agent.run(question, message_history=history)
        history[:] = result.all_messages()
        usage = result.usage
        return Turn(usage.input_tokens, usage.cache_read_tokens, usage.output_tokens)

    return ask


def llm_plugin(_url: str) -> Ask:
    """The address is taken from STREAMINGLLM_URL."""
    conversation = llm.get_model(f"streamingllm/{MODEL}").conversation()

    def ask(question: str) -> Turn:
        response = conversation.prompt(question, **_SAMPLING)
        response.text()
        details: Any = response.token_details
        return Turn(response.input_tokens, details["cached_tokens"], response.output_tokens)

    return ask


TALKERS: dict[str, Callable[[str], Ask | AskAsync]] = {
    "openai chat": openai_chat,
    "openai async, streamed": openai_async_stream,
    "openai, named session": openai_named_session,
    "openai responses, streamed": openai_responses,
    "openai realtime": openai_realtime,
    "anthropic, streamed": anthropic_messages,
    "langchain-openai": langchain,
    "openai-agents": openai_agents,
    "openai-agents, conversation session": openai_agents_conversation,
    "pydantic-ai": pydantic_ai,
    "llm with our plugin": llm_plugin,
}
NODE_TALKERS = {
    "openai-node chat": "openai-chat",
    "openai-node chat, streamed": "openai-chat-stream",
    "AI SDK, openai-compatible": "ai-sdk-compatible",
    "openai-node responses, streamed": "openai-responses",
    "AI SDK, openai chat": "ai-sdk-openai-chat",
    "AI SDK, openai responses": "ai-sdk-openai-responses",
}


@contextmanager
def asking(name: str, url: str) -> Iterator[Ask]:
    """Ask through a client; one loop of asyncio serves all of its turns."""
    ask = TALKERS[name](url)
    with asyncio.Runner() as runner:

        def ask_once(question: str) -> Turn:
            found: Any = ask(question)
            return found if isinstance(found, Turn) else runner.run(_awaited(found))

        yield ask_once


def node_turns(name: str, url: str, num_turns: int) -> Iterator[dict[str, Any]]:
    """Talk through a client of Node.js; yields what each turn cost, as soon as it has ended."""
    folder = Path(__file__).with_name("node")
    with subprocess.Popen(
        ["node", "talk.mjs", NODE_TALKERS[name], url, MODEL, str(num_turns)],
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
    ) as ran:
        assert ran.stdout is not None
        for line in ran.stdout:
            yield json.loads(line)
    assert ran.returncode == 0, f"{name} ended with {ran.returncode}; see its standard error"


async def _awaited(found: Awaitable[Turn]) -> Turn:
    return await found


def _of_chat(usage: Any) -> Turn:
    cached = usage.prompt_tokens_details.cached_tokens
    return Turn(usage.prompt_tokens, cached, usage.completion_tokens)


def _of_response(usage: Any) -> Turn:
    return Turn(usage.input_tokens, usage.input_tokens_details.cached_tokens, usage.output_tokens)
