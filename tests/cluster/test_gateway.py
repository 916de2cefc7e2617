from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from streamingllm import LanguageModel
from tests.cluster.asking import ask, events_of, text_of
from tests.cluster.mortal_engines import Deaths, cluster_of

pytestmark = pytest.mark.anyio
NUM_TURNS = 5
CHATS = "/v1/chat/completions"


def chat(text: str, **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], "max_tokens": 20, **fields}


async def talk(app: Any, session: str = "s", **fields: Any) -> list[str]:
    """The streamed answers of a session to numbered questions."""
    return [
        text_of(
            await ask(
                app,
                "POST",
                CHATS,
                chat(f"q{number}?", stream=True, **fields),
                x_session_id=session,
            )
        )
        for number in range(NUM_TURNS)
    ]


async def messages_of(app: Any, session: str) -> list[str]:
    answer = await ask(app, "GET", f"/v1/sessions/{session}")
    assert answer.status == 200, answer.body
    return [message["text"] for message in answer.json()["messages"]]


@pytest.mark.parametrize("commits", [False, True])
@pytest.mark.parametrize("sampling", [{}, {"temperature": 1.0, "seed": 7}])
async def test_answers_are_those_of_an_engine_that_never_died(
    commits: bool, sampling: dict[str, Any], tiny_chat: LanguageModel, tmp_path: Path
) -> None:
    async with cluster_of(tiny_chat, tmp_path / "alone") as (alone, _):
        expected = await talk(alone, **sampling)
        stored = await messages_of(alone, "s")
    deaths = Deaths([0, 4, 9, 1, 12, 3, 7, 2], commits)
    async with cluster_of(tiny_chat, tmp_path / "mortal", deaths) as (gateway, _):
        assert await talk(gateway, **sampling) == expected
        assert await messages_of(gateway, "s") == stored
    assert deaths.num_deaths == 8


@pytest.mark.parametrize("commits", [False, True])
async def test_a_whole_answer_is_given_once(
    commits: bool, tiny_chat: LanguageModel, tmp_path: Path
) -> None:
    async with cluster_of(tiny_chat, tmp_path, Deaths([0, 0], commits)) as (gateway, engines):
        answer = await ask(gateway, "POST", CHATS, chat("hello"))
        said = answer.json()["choices"][0]["message"]["content"]
        session = answer.headers["x-session-id"]
        assert await messages_of(gateway, session) == ["hello", said]
        listed = await ask(gateway, "GET", "/v1/sessions")
        assert [found["id"] for found in listed.json()["data"]] == [session]
        assert engines.keys[:3] == [engines.keys[0]] * 3


async def test_a_chain_of_responses_goes_on_after_deaths(
    tiny_chat: LanguageModel, tmp_path: Path
) -> None:
    def asked(text: str, **fields: Any) -> dict[str, Any]:
        return {"input": text, "max_output_tokens": 12, "stream": True, **fields}

    async with cluster_of(tiny_chat, tmp_path, Deaths([5, 2, 9, 1])) as (gateway, engines):
        first = events_of(await ask(gateway, "POST", "/v1/responses", asked("one")))
        numbers = [event["sequence_number"] for event in first[:-1]]
        assert numbers == [*range(len(numbers))]
        created, completed = first[0]["response"], first[-2]["response"]
        assert created["id"] == completed["id"]
        assert completed["status"] == "incomplete"
        then = asked("two", previous_response_id=created["id"])
        second = events_of(await ask(gateway, "POST", "/v1/responses", then))
        assert second[-2]["response"]["previous_response_id"] == created["id"]
        fetched = await ask(gateway, "GET", f"/v1/responses/{created['id']}")
        assert fetched.json()["output"] == completed["output"]
        assert len(set(engines.keys)) == 1  # all of one session


async def test_a_request_that_a_client_sends_again_by_its_key_is_one_turn(
    tiny_chat: LanguageModel, tmp_path: Path
) -> None:
    async with cluster_of(tiny_chat, tmp_path) as (gateway, _):
        answers = [
            await ask(
                gateway,
                "POST",
                CHATS,
                chat("hello", stream=True),
                x_session_id="s",
                idempotency_key="once",
            )
            for _ in range(2)
        ]
        assert text_of(answers[0]) == text_of(answers[1])
        assert await messages_of(gateway, "s") == ["hello", text_of(answers[0])]
        later = await ask(gateway, "POST", CHATS, chat("more"), x_session_id="s")
        assert later.status == 200
        late = await ask(
            gateway,
            "POST",
            CHATS,
            chat("hello"),
            x_session_id="s",
            idempotency_key="once",
        )
        assert late.status == 409
        assert "has gone on since" in late.json()["error"]["message"]


async def test_what_cannot_be_repeated_is_said(tiny_chat: LanguageModel, tmp_path: Path) -> None:
    async with cluster_of(tiny_chat, tmp_path, Deaths([0])) as (gateway, _):
        refused = await ask(gateway, "POST", "/v1/sessions", {})
        assert refused.status == 503
        assert refused.json()["error"]["code"] == "replica_died"
        assert "look, then retry" in refused.json()["error"]["message"]
        listed = await ask(gateway, "GET", "/v1/sessions")
        assert listed.status == 200


async def test_a_session_moves_between_living_engines_with_all_it_has_said(
    tiny_chat: LanguageModel, tmp_path: Path
) -> None:
    async with cluster_of(tiny_chat, tmp_path / "alone") as (alone, _):
        expected = await talk(alone)
    async with (
        cluster_of(tiny_chat, tmp_path / "moved") as (one, _),
        cluster_of(tiny_chat, tmp_path / "moved") as (other, _),
    ):
        moved = []
        for number in range(NUM_TURNS):
            asked = chat(f"q{number}?", stream=True)
            gateway = (one, other)[number % 2]
            answer = await ask(gateway, "POST", CHATS, asked, x_session_id="s")
            moved.append(text_of(answer))
        assert moved == expected
        assert await messages_of(one, "s") == await messages_of(other, "s")


async def test_a_client_that_leaves_stops_its_turn_and_keeps_what_there_is(
    tiny_chat: LanguageModel, tmp_path: Path
) -> None:
    async with cluster_of(tiny_chat, tmp_path) as (gateway, engines):
        asked = chat("hello", stream=True, max_tokens=5000)
        left = await ask(gateway, "POST", CHATS, asked, leaves_after=6, x_session_id="s")
        assert not left.body.endswith(b"data: [DONE]\n\n")
        answer = await ask(gateway, "POST", CHATS, chat("more", stream=True), x_session_id="s")
        said = await messages_of(gateway, "s")
        assert (said[0], said[2], said[3]) == ("hello", "more", text_of(answer))
        assert 0 < len(said[1]) < 5000
        assert len(engines.apps) == 1
