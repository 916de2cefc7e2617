"""Let a model search the memory of its session by a tool."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from streamingllm import LanguageModel
from streamingllm.sessions.manager import SessionManager
from streamingllm.sessions.memory_tool import (
    MAX_SEARCHES,
    SEARCH_MEMORY,
    MemoryTool,
    may_search,
    with_search,
)
from streamingllm.sessions.transcript import Message, ToolCall
from streamingllm.sessions.turn import SampleEnded, ToolCallDelta
from streamingllm.stream.sampling import SamplingParams
from tests.memory.remembering import BUDGET, HERE, SECRET, fed, remembering, tell_secret
from tests.sessions.managers import end_of, request, session_of, text_of, turn

pytestmark = pytest.mark.anyio

CALLING: dict[str, Any] = {
    "tool_mode": "required",
    "parallel_tool_calls": False,
    "params": SamplingParams(max_new_tokens=700, seed=3, temperature=1.0),
}
ROOM: dict[str, Any] = {"cache_size": 4000, "max_pinned": 1500, "has_memory_tool": True}
OTHER = {"type": "function", "function": {"name": "note", "parameters": {"type": "object"}}}


async def calling(manager: SessionManager, **fields: Any) -> list[Any]:
    asked = request("What was it?", identity=HERE, **{**CALLING, **fields})
    return await turn(manager, asked)


async def test_a_call_is_run_here_and_the_answer_goes_on(
    tiny_chat: LanguageModel, tmp_path: Path
) -> None:
    async with remembering(tiny_chat, tmp_path, **ROOM) as manager:
        events = await calling(manager, tool_name=SEARCH_MEMORY)
        recall = end_of(events).view.recall
        assert recall is not None
        (search,) = recall.searches
        assert search.texts == ()  # all is visible
        assert not any(isinstance(event, ToolCallDelta) for event in events)
        (ended,) = [event for event in events if isinstance(event, SampleEnded)]
        assert ended.tool_calls == ()

        session = await session_of(manager, "here")
        question, answer = list(session.transcript)[-2:]
        assert (question.text, answer.role) == ("What was it?", "assistant")
        assert answer.text == text_of(events) == ended.message.text
        assert answer.stop == len(session.token_log)
        told = str(tiny_chat.tokenizer.decode(session.token_log[answer.first :].tolist()))
        call, response, after = told.partition("<tool_response>\nNothing was found.")
        assert f'"name": "{SEARCH_MEMORY}"' in call
        assert response
        assert answer.text in after
        usage = end_of(events).usage
        assert usage.num_generated_tokens + usage.num_fed_tokens == answer.stop


async def test_searches_of_one_answer_are_bounded(tiny_chat: LanguageModel, tmp_path: Path) -> None:
    async with remembering(tiny_chat, tmp_path, **ROOM) as manager:
        events = await calling(manager)  # the only tool, again and again
        recall = end_of(events).view.recall
        assert recall is not None
        assert len(recall.searches) <= MAX_SEARCHES
        assert len(recall.searches) > 1
        (ended,) = [event for event in events if isinstance(event, SampleEnded)]
        assert ended.tool_calls == ()


async def test_results_are_what_left_the_window_within_a_budget(
    tiny_chat: LanguageModel, tmp_path: Path
) -> None:
    async with remembering(tiny_chat, tmp_path) as manager:
        secret = await tell_secret(manager)
        session = await session_of(manager, "here")
        recaller = manager._turns._recall._recaller
        assert recaller is not None
        before = await fed(manager)
        for budget, is_found in ((BUDGET, True), (len(SECRET), False)):
            tool = MemoryTool(recaller, manager._templates, budget)
            made = ToolCall("call_1", SEARCH_MEMORY, '{"query": "hamster Napoleon"}')
            call = Message("assistant", tool_calls=(made,))
            ids, (search,) = await tool.results(session, call, len(session.token_log))
            told = str(tiny_chat.tokenizer.decode(ids))
            assert search.query == "hamster Napoleon"
            assert [part.message_id for part in search.texts][:1] == [secret] * is_found
            assert (SECRET in told) == is_found
            assert ("Nothing was found." in told) != is_found
            assert len(ids) <= budget or not is_found
        assert await fed(manager) == before


async def test_the_search_is_pinned_only_while_it_is_on(
    tiny_chat: LanguageModel, tmp_path: Path
) -> None:
    for is_on in (True, False):
        async with remembering(
            tiny_chat, tmp_path, **{**ROOM, "has_memory_tool": is_on}
        ) as manager:
            await turn(manager, request("a", identity=HERE, tools=(OTHER,)))
            await turn(manager, request("b", identity=HERE))
            session = await session_of(manager, "here")
            assert may_search(session.tools) == is_on
            assert session.tools[0] == OTHER
            assert (SEARCH_MEMORY in (await fed(manager))[: session.num_pinned_tokens]) == is_on


def test_a_tool_of_the_client_takes_the_place_of_the_search() -> None:
    own = {"type": "function", "function": {"name": SEARCH_MEMORY, "parameters": {}}}
    assert with_search((own,), is_on=True) == (own,)
    both = with_search((OTHER,), is_on=True)
    assert with_search(both, is_on=True) == both
    assert with_search(both, is_on=False) == (OTHER,)


@pytest.mark.parametrize(
    ("arguments", "query"),
    [('{"query": "a b"}', "a b"), ('{"query": 3}', '{"query": 3}'), ("[1]", "[1]"), ("x", "x")],
)
async def test_arguments_that_are_wrong_are_searched_as_they_are(
    tiny_chat: LanguageModel, tmp_path: Path, arguments: str, query: str
) -> None:
    async with remembering(tiny_chat, tmp_path) as manager:
        await turn(manager, request("a", identity=HERE))
        session = await session_of(manager, "here")
        recaller = manager._turns._recall._recaller
        assert recaller is not None
        call = Message("assistant", tool_calls=(ToolCall("call_1", SEARCH_MEMORY, arguments),))
        tool = MemoryTool(recaller, manager._templates, BUDGET)
        _, (search,) = await tool.results(session, call, len(session.token_log))
        assert search.query == query
