"""Responses and conversations through openai and openai-agents, as they are installed."""

from __future__ import annotations

from typing import Any

import pytest
from agents import Agent, ModelSettings, OpenAIConversationsSession, OpenAIResponsesModel, Runner
from openai import AsyncOpenAI, NotFoundError, OpenAI

from tests.clients.conftest import MODEL

OPTIONS: dict[str, Any] = {"model": MODEL, "max_output_tokens": 16, "temperature": 0}


@pytest.fixture
def client(url: str) -> OpenAI:
    return OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


def test_a_chain_feeds_only_what_is_new(client: OpenAI) -> None:
    first = client.responses.create(input="Say hello. " * 20, **OPTIONS)
    second = client.responses.create(input="And?", previous_response_id=first.id, **OPTIONS)
    assert first.usage is not None
    assert second.usage is not None
    assert second.usage.input_tokens_details.cached_tokens >= first.usage.input_tokens
    assert client.responses.retrieve(second.id).output_text == second.output_text
    client.responses.delete(second.id)
    with pytest.raises(NotFoundError):
        client.responses.retrieve(second.id)


def test_a_stream_is_the_answer_in_pieces(client: OpenAI) -> None:
    # The client takes a response that is cut off for none.
    options = {**OPTIONS, "max_output_tokens": 400}
    whole = client.responses.create(input="Say hello.", **options)
    with client.responses.stream(input="Say hello.", **options) as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert "".join(deltas) == final.output_text == whole.output_text


def test_a_socket_answers_in_turn(client: OpenAI) -> None:
    chained: dict[str, Any] = {}
    with client.responses.connect() as connection:
        for text in ("Say hello.", "And again?"):
            connection.response.create(input=text, store=False, **OPTIONS, **chained)
            for event in connection:
                if event.type in ("response.completed", "response.incomplete"):
                    chained = {"previous_response_id": event.response.id}
                    break
                assert event.type not in ("error", "response.failed"), event
    assert chained


def test_a_conversation_keeps_its_items(client: OpenAI) -> None:
    conversation = client.conversations.create()
    client.responses.create(input="Say hello.", conversation=conversation.id, **OPTIONS)
    items = list(client.conversations.items.list(conversation.id, order="asc"))
    assert [item.type for item in items] == ["message", "message"]
    client.conversations.delete(conversation.id)
    with pytest.raises(NotFoundError):
        client.conversations.retrieve(conversation.id)


async def test_an_agent_keeps_its_conversation(client: OpenAI) -> None:
    own = AsyncOpenAI(base_url=str(client.base_url), api_key="none", max_retries=0)
    agent: Agent[Any] = Agent(
        name="assistant",
        model=OpenAIResponsesModel(MODEL, own),
        model_settings=ModelSettings(max_tokens=400, temperature=0),
    )
    session = OpenAIConversationsSession(openai_client=own)
    for question in ("Say hello.", "And again?"):
        assert (await Runner.run(agent, question, session=session)).final_output
    assert len(await session.get_items()) == 4
