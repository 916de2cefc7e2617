"""Recall into the stream: what is put back, what it takes, and what is left of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamingllm import LanguageModel
from streamingllm.sessions.recall import EvictedResult, Recall
from streamingllm.sessions.transcript import ContentPart, Message, ToolCall
from tests.memory.remembering import (
    BUDGET,
    HERE,
    MAX_REWIND,
    QUESTION,
    SECRET,
    asked,
    fed,
    grep,
    remembering,
    tell_secret,
)
from tests.sessions.managers import (
    assistant,
    end_of,
    named,
    request,
    say,
    session_of,
    text_of,
    turn,
)

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("eviction", ["token", "turn"])
async def test_what_left_the_window_is_put_before_the_question(
    tiny_chat: LanguageModel, tmp_path: Path, eviction: str
) -> None:
    async with remembering(tiny_chat, tmp_path) as manager:
        secret = await tell_secret(manager, eviction=eviction)
        before, copies = len((await session_of(manager, "here")).token_log), await fed(manager)
        events = await turn(manager, request(QUESTION, identity=HERE))
        recall = end_of(events).view.recall
        assert recall is not None
        assert recall.texts[0].message_id == secret
        assert recall.texts[0].text == SECRET
        session = await session_of(manager, "here")
        message = session.transcript[-2]
        assert message.text == QUESTION
        assert (await fed(manager)).count(SECRET) == copies.count(SECRET) + 1
        told = manager.lm.tokenizer.decode(session.token_log[message.first : message.stop].tolist())
        assert told.index("[From earlier") < told.index(SECRET) < told.index(QUESTION)
        num_tokens = message.stop - before
        assert len(QUESTION) + len(SECRET) < num_tokens <= BUDGET + len(QUESTION) + 8


async def test_what_is_visible_is_not_recalled(tiny_chat: LanguageModel, tmp_path: Path) -> None:
    async with remembering(tiny_chat, tmp_path) as manager:
        await say(manager, SECRET, identity=HERE)
        assert await asked(manager) == Recall()
        assert await asked(manager, "Where is the crocodile?") == Recall(
            (), ("crocodil",), is_not_found=True
        )
        assert await asked(manager, "I have a giraffe.") == Recall()


async def test_sessions_recall_what_they_have_said(
    tiny_chat: LanguageModel, tmp_path: Path
) -> None:
    async with remembering(tiny_chat, tmp_path) as manager:
        await say(manager, SECRET, identity=named("there"))
        recall = await asked(manager)
        assert recall is not None
        assert recall.texts == ()


async def test_nothing_is_recalled_where_nothing_may_be_evicted(
    tiny_chat: LanguageModel, tmp_path: Path
) -> None:
    async with remembering(tiny_chat, tmp_path) as manager:
        await say(manager, SECRET, identity=HERE)
        assert await asked(manager, truncation="disabled") is None
    async with remembering(tiny_chat, tmp_path / "without", has_memory=False) as manager:
        assert await asked(manager) is None


@pytest.mark.parametrize("eviction", ["token", "turn"])
async def test_a_turn_is_fed_again_without_its_recalled_texts(
    tiny_chat: LanguageModel, tmp_path: Path, eviction: str
) -> None:
    rewinds = {"recall_rewind_tokens": MAX_REWIND}
    async with remembering(tiny_chat, tmp_path / "a", **rewinds) as manager:
        await tell_secret(manager, eviction=eviction)
        before = await fed(manager)
        events = await turn(manager, request(QUESTION, identity=HERE))
        recall = end_of(events).view.recall
        assert recall is not None
        assert recall.texts
        session = await session_of(manager, "here")
        assert (await fed(manager)).startswith(before)
        told = (await fed(manager))[len(before) :]
        answer = session.transcript[-1]
        assert told.lstrip("~").startswith(f"u:{QUESTION}~a:")
        assert "[From earlier" not in told
        assert [m.text for m in session.transcript][-2:] == [QUESTION, text_of(events)]
        assert answer.stop == len(session.token_log)
        archive = await manager.export("", "here")
        rewound = await say(manager, "Zzz.", identity=HERE)
        moves = (await manager.stats()).moves
        assert not moves.get("device->tail", 0)  # no replay
    async with remembering(tiny_chat, tmp_path / "b", has_memory=False) as manager:
        view = await manager.import_("", archive)
        same = await say(manager, "Zzz.", identity=named(view.session_id))
        assert same == rewound


@pytest.mark.parametrize("rewind", [0, MAX_REWIND])
async def test_an_answer_may_have_a_beginning(
    tiny_chat: LanguageModel, tmp_path: Path, rewind: int
) -> None:
    async with remembering(tiny_chat, tmp_path, recall_rewind_tokens=rewind) as manager:
        await tell_secret(manager)
        before = await fed(manager)
        begun = assistant("It is")
        events = await turn(manager, request(QUESTION, begun, identity=HERE))
        recall = end_of(events).view.recall
        assert recall is not None
        assert recall.texts[0].text == SECRET
        told = (await fed(manager))[len(before) :]
        assert ("[From earlier" in told) == (rewind == 0)
        assert f"{QUESTION}~a:It is" in told
        session = await session_of(manager, "here")
        answer = session.transcript[-1]
        ids = session.token_log[answer.first : answer.stop].tolist()
        assert str(manager.lm.tokenizer.decode(ids)).startswith("It is")
        assert answer.stop == len(session.token_log)


async def test_a_turn_too_long_to_rewind_keeps_its_recalled_texts(
    tiny_chat: LanguageModel, tmp_path: Path
) -> None:
    async with remembering(tiny_chat, tmp_path, recall_rewind_tokens=50) as manager:
        await tell_secret(manager)
        before = await fed(manager)
        await asked(manager)
        assert (await fed(manager)).count(SECRET) == before.count(SECRET) + 1


async def test_a_deleted_message_is_forgotten_everywhere(
    tiny_chat: LanguageModel, tmp_path: Path
) -> None:
    async with remembering(tiny_chat, tmp_path) as manager:
        secret = await tell_secret(manager)
        await manager.delete_message("", "here", secret)
        assert not grep(tmp_path, "napoleon")
        assert await asked(manager, "Who is that emperor?") == Recall(
            (), ("emperor",), is_not_found=True
        )
        await manager.delete("", "here")
        assert not grep(tmp_path, "place")


async def test_branches_recall_what_they_share(tiny_chat: LanguageModel, tmp_path: Path) -> None:
    async with remembering(tiny_chat, tmp_path) as manager:
        secret = await tell_secret(manager)
        branch = await manager.fork("", "here")
        await manager.rewind("", "here", num_turns=19)
        assert await asked(manager) == Recall((), ("napoleon",), is_not_found=True)
        events = await turn(manager, request(QUESTION, identity=named(branch.session_id)))
        recall = end_of(events).view.recall
        assert recall is not None
        assert recall.texts[0].message_id == secret


async def test_a_memory_reads_sessions_that_are_older_than_itself(
    tiny_chat: LanguageModel, tmp_path: Path
) -> None:
    async with remembering(tiny_chat, tmp_path, has_memory=False) as manager:
        secret = await tell_secret(manager)
    for _ in range(2):
        async with remembering(tiny_chat, tmp_path) as manager:
            recall = await asked(manager)
            assert recall is not None
            assert recall.texts[0].message_id == secret


@pytest.mark.parametrize("has_tool", [False, True])
async def test_a_placeholder_stands_for_a_result_that_left_the_window(
    tiny_chat: LanguageModel, tmp_path: Path, has_tool: bool
) -> None:
    room = {"cache_size": 2000, "max_pinned": 1400, "has_memory_tool": True} if has_tool else {}
    result = Message("tool", (ContentPart("Sunny, 25 degrees."),), tool_call_id="call_1")
    call = Message("assistant", tool_calls=(ToolCall("call_1", "weather", "{}"),))
    async with remembering(tiny_chat, tmp_path, **room) as manager:
        await say(manager, "How is it?", call, result, identity=HERE)
        session = await session_of(manager, "here")
        (kept,) = [m for m in session.transcript if m.role == "tool"]
        told = []
        for number in range(16):
            before = len(session.token_log)
            recall = await asked(manager, f"A word about the number {number}. " + "And more. " * 6)
            assert recall is not None
            if recall.evicted_results:
                told.append(recall.evicted_results)
                line = manager.lm.tokenizer.decode(session.token_log[before:].tolist())
                assert kept.stop <= session.num_pinned_tokens + session.num_forgotten_tokens
        assert told == [(EvictedResult(kept.id, "weather", 5),)]  # once
        how = "recall it with search_memory" if has_tool else "it is recalled when"
        assert f"[evicted: result of weather, 5 tokens; {how}" in line
        recall = await asked(manager, "Was it sunny?")
        assert recall is not None
        assert recall.texts[0].message_id == kept.id
