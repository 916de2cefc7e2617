"""The realtime client of the openai package, as it is installed."""

from __future__ import annotations

from typing import Any

from openai import AsyncOpenAI, OpenAI

from tests.clients.conftest import MODEL


def say(connection: Any, text: str) -> Any:
    content = [{"type": "input_text", "text": text}]
    item = {"type": "message", "role": "user", "content": content}
    connection.conversation.item.create(item=item)
    assert connection.recv().type == "conversation.item.added"
    done = connection.recv()
    assert done.type == "conversation.item.done"
    return done.item


def until_done(connection: Any) -> list[Any]:
    events = [connection.recv()]
    while events[-1].type != "response.done":
        events.append(connection.recv())
    return events


def test_a_session_talks_and_forgets_an_item(openai_url: str) -> None:
    client = OpenAI(base_url=openai_url, api_key="none")
    with client.realtime.connect(model=MODEL) as connection:
        assert connection.recv().type == "session.created"
        connection.session.update(
            session={"type": "realtime", "instructions": "Be brief.", "max_output_tokens": 8}
        )
        updated = connection.recv()
        assert updated.type == "session.updated"
        assert updated.session.instructions == "Be brief."
        item = say(connection, "Say hello.")
        connection.response.create()
        events = until_done(connection)
        deltas = [e.delta for e in events if e.type == "response.output_text.delta"]
        done: Any = events[-1].response
        assert done.output[0].content[0].text == "".join(deltas)
        assert done.usage.output_tokens == len(deltas)
        connection.conversation.item.delete(item_id=item.id)
        assert connection.recv().type == "conversation.item.deleted"
        connection.conversation.item.retrieve(item_id=item.id)
        error = connection.recv()
        assert error.type == "error"
        assert error.error.code == "item_not_found"


def test_an_answer_is_cancelled(openai_url: str) -> None:
    client = OpenAI(base_url=openai_url, api_key="none")
    with client.realtime.connect(model=MODEL) as connection:
        connection.recv()
        say(connection, "Count to one hundred, in words.")
        connection.response.create(response={"max_output_tokens": 1000})
        assert connection.recv().type == "response.created"
        connection.response.cancel()
        assert until_done(connection)[-1].response.status == "cancelled"


async def test_the_async_client_talks(openai_url: str) -> None:
    client = AsyncOpenAI(base_url=openai_url, api_key="none")
    async with client.realtime.connect(model=MODEL) as connection:
        assert (await connection.recv()).type == "session.created"
        await connection.response.create(
            response={
                "conversation": "none",
                "max_output_tokens": 4,
                "input": [
                    {
                        "type": "message",
                        "role": "user",
                        "content": [{"type": "input_text", "text": "Hi"}],
                    }
                ],
            }
        )
        async for event in connection:
            if event.type == "response.done":
                break
        assert event.type == "response.done"
        assert event.response.usage is not None
        assert event.response.usage.output_tokens is not None
