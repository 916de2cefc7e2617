"""Sessions on one engine: each one's answers are those it would give alone."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from streamingllm import LanguageModel
from streamingllm.errors import ContextLengthError, InputError, SessionNotFoundError
from streamingllm.sessions.turn import Identity
from streamingllm.stream.sampling import SamplingParams
from tests.sessions.managers import (
    CACHE_SIZE,
    SYSTEM,
    assistant,
    chat_of_turns,
    end_of,
    managing,
    named,
    request,
    say,
    session_of,
    turn,
    user,
)

pytestmark = pytest.mark.anyio

PINNED = len(f"s:{SYSTEM}~")
STATE = 60_000  # bytes, more than one stream of the tiny model takes
BUDGETS = {
    "host": {"host_bytes": 1 << 30},
    "disk": {"host_bytes": 0},
    "tail": {"host_bytes": 0, "disk_bytes": 0},
    "little of each": {"host_bytes": 3 * STATE, "disk_bytes": 5 * STATE},
}


@pytest.fixture(scope="module")
def answers_alone(tiny_chat: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Answers of one session that has the engine to itself, per way of eviction."""

    async def collect() -> dict[str, list[str]]:
        found = {}
        for eviction in ("token", "turn"):
            async with managing(tiny_chat, tmp_path_factory.mktemp("alone")) as manager:
                found[eviction] = await chat_of_turns(manager, "alone", eviction=eviction)
        return found

    return asyncio.run(collect())


@pytest.mark.parametrize("eviction", ["token", "turn"])
@pytest.mark.parametrize("budget", BUDGETS)
async def test_many_sessions_on_two_slots_answer_as_alone(
    tiny_chat: LanguageModel, tmp_path: Path, answers_alone: Any, budget: str, eviction: str
) -> None:
    async with managing(tiny_chat, tmp_path, **BUDGETS[budget]) as manager:
        chats = [chat_of_turns(manager, f"s{k}", eviction=eviction) for k in range(6)]
        for answers in await asyncio.gather(*chats):
            assert answers == answers_alone[eviction]
        stats = await manager.stats()
        assert stats.num_bytes["host"] <= BUDGETS[budget]["host_bytes"]
        assert stats.num_bytes["disk"] <= BUDGETS[budget].get("disk_bytes", 1 << 40)
        assert any(move.startswith("device->") for move in stats.moves)


async def test_the_ways_of_eviction_differ(answers_alone: Any) -> None:
    assert answers_alone["token"] != answers_alone["turn"]


async def test_a_restart_goes_on_as_if_there_had_been_none(
    tiny_chat: LanguageModel, tmp_path: Path, answers_alone: Any
) -> None:
    for number, expected in enumerate(answers_alone["token"]):
        async with managing(tiny_chat, tmp_path) as manager:
            assert await say(manager, f"q{number}?", identity=named("alone")) == expected


@pytest.mark.parametrize("kind", ["transcript", "chat"])
async def test_a_client_that_sends_its_history_is_fed_its_suffix(
    tiny_chat: LanguageModel, tmp_path: Path, answers_alone: Any, kind: Any
) -> None:
    history = []
    async with managing(tiny_chat, tmp_path) as manager:
        for number, expected in enumerate(answers_alone["token"]):
            history.append(user(f"q{number}?"))
            asked = request(*history, identity=Identity(kind, "chat-1" if kind == "chat" else ""))
            events = await turn(manager, asked)
            assert end_of(events).usage.num_fed_tokens < 12 + PINNED * (number == 0)
            history.append(assistant(expected))
        assert (await manager.list("")).sessions[0].num_messages == 25
        assert len((await manager.list("")).sessions) == 1


async def test_an_edited_history_forks_and_the_old_one_goes_on(
    tiny_chat: LanguageModel, tmp_path: Path, answers_alone: Any
) -> None:
    answers = answers_alone["token"]
    history = [m for n in range(6) for m in (user(f"q{n}?"), assistant(answers[n]))]
    async with managing(tiny_chat, tmp_path) as manager:
        for number in range(6):
            await say(manager, *history[: 2 * number + 1])
        edited = await turn(manager, request(*history[:4], user("other?")))
        assert end_of(edited).view.num_messages == 7
        assert await say(manager, *history, user("q6?")) == answers[6]
        assert len((await manager.list("")).sessions) == 2


async def test_a_named_session_keeps_what_an_edit_replaces(
    tiny_chat: LanguageModel, tmp_path: Path
) -> None:
    async with managing(tiny_chat, tmp_path) as manager:
        await chat_of_turns(manager, "named", 3)
        first = (await session_of(manager, "named")).transcript[2].text
        edit = request(user("q0?"), assistant(first), user("new?"), identity=named("named"))
        events = await turn(manager, edit)
        assert end_of(events).view.session_id == "named"
        assert end_of(events).view.num_messages == 5
        lengths = sorted(s.num_messages for s in (await manager.list("")).sessions)
        assert lengths == [5, 7]


async def test_a_point_in_the_past_branches(
    tiny_chat: LanguageModel, tmp_path: Path, answers_alone: Any
) -> None:
    async with managing(tiny_chat, tmp_path) as manager:
        await chat_of_turns(manager, "s", 4)
        messages = (await manager.get("", "s")).messages
        here = Identity("point", "s", messages[4].id)  # after the second answer
        for _ in range(2):
            events = await turn(manager, request("q2?", identity=here))
            assert end_of(events).view.session_id != "s"
        assert end_of(events).view.num_messages == 7
        assert await say(manager, "q4?", identity=named("s")) == answers_alone["token"][4]
        with pytest.raises(SessionNotFoundError, match="message_id"):
            await say(manager, "x", identity=Identity("point", "s", "msg_unknown"))


async def test_rewind_and_say_it_again(
    tiny_chat: LanguageModel, tmp_path: Path, answers_alone: Any
) -> None:
    async with managing(tiny_chat, tmp_path) as manager:
        await chat_of_turns(manager, "s", 10)
        view = await manager.rewind("", "s", num_turns=4)  # beyond the rewind buffer
        assert view.num_messages == 13
        again = [await say(manager, f"q{n}?", identity=named("s")) for n in range(6, 12)]
        assert again == answers_alone["token"][6:]
        await manager.rewind("", "s", num_turns=1)  # within it
        assert await say(manager, "q11?", identity=named("s")) == again[-1]


@pytest.mark.parametrize("num_events", [1, 4])
@pytest.mark.parametrize("on_disconnect", ["keep", "rollback"])
async def test_a_client_that_leaves_does_not_harm_the_session(
    tiny_chat: LanguageModel,
    tmp_path: Path,
    answers_alone: Any,
    on_disconnect: str,
    num_events: int,
) -> None:
    endless = SamplingParams(max_new_tokens=None)
    async with managing(tiny_chat, tmp_path, on_disconnect=on_disconnect) as manager:
        await chat_of_turns(manager, "s", 6)
        events = manager.respond(request("q6?", identity=named("s"), params=endless))
        for _ in range(num_events):
            await anext(events)
        await events.aclose()
        session = await session_of(manager, "s")
        has_answer = on_disconnect == "keep" and num_events > 1
        assert session.transcript.num_turns == 6 + has_answer
        if has_answer:
            assert answers_alone["token"][6].startswith(session.transcript[-1].text[:2])
            await manager.rewind("", "s", num_turns=1)
        assert await say(manager, "q6?", identity=named("s")) == answers_alone["token"][6]
        assert (await manager.stats()).num_running == 0


async def test_stop_ends_the_answer_and_keeps_it(tiny_chat: LanguageModel, tmp_path: Path) -> None:
    async with managing(tiny_chat, tmp_path) as manager:
        asked = request("q?", identity=named("s"), params=SamplingParams(max_new_tokens=None))
        events = []
        async for event in manager.respond(asked):
            events.append(event)
            if len(events) == 4:
                assert await manager.stop("", "s")
        assert events[-2].reason == "cancelled"  # type: ignore[union-attr]
        assert (await session_of(manager, "s")).transcript.num_turns == 1
        assert not await manager.stop("", "s")


async def test_another_system_prompt_is_read_from_the_log(
    tiny_chat: LanguageModel, tmp_path: Path
) -> None:
    async with managing(tiny_chat, tmp_path) as manager:
        await chat_of_turns(manager, "s", 2)
        before = await session_of(manager, "s")
        said = [m.text for m in before.transcript][1:]
        await say(manager, "q2?", identity=named("s"), system_prompt="Be brief, please.")
        after = await manager.get("", "s")
        assert after.messages[0].text == "Be brief, please."
        assert [m.text for m in after.messages][1:5] == said
        assert after.view.num_pinned_tokens == len("s:Be brief, please.~")
    async with managing(tiny_chat, tmp_path) as manager:
        assert (await manager.get("", "s")).messages == after.messages


async def test_a_prompt_that_does_not_fit_is_refused(
    tiny_chat: LanguageModel, tmp_path: Path
) -> None:
    async with managing(tiny_chat, tmp_path) as manager:
        with pytest.raises(InputError, match="max_pinned_tokens=30"):
            await say(manager, "q?", system_prompt="x" * 40)
        assert (await manager.list("")).sessions == ()


async def test_nothing_is_dropped_when_truncation_is_disabled(
    tiny_chat: LanguageModel, tmp_path: Path
) -> None:
    async with managing(tiny_chat, tmp_path) as manager:
        events = await turn(
            manager,
            request(
                "q?",
                identity=named("s"),
                truncation="disabled",
                params=SamplingParams(max_new_tokens=None),
            ),
        )
        view = end_of(events).view
        assert (view.num_seen_tokens, view.num_forgotten_tokens) == (CACHE_SIZE, 0)
        assert events[-2].reason == "length"  # type: ignore[union-attr]
        with pytest.raises(ContextLengthError, match="exceeds the context size"):
            await say(manager, "q?", identity=named("s"), truncation="disabled")
        assert await say(manager, "q?", identity=named("s"))


async def test_a_side_task_leaves_no_trace(
    tiny_chat: LanguageModel, tmp_path: Path, answers_alone: Any
) -> None:
    async with managing(tiny_chat, tmp_path) as manager:
        await chat_of_turns(manager, "s", 6)
        asked = request("a title?", identity=named("s"), is_side_task=True)
        assert end_of(await turn(manager, asked)).view.session_id != "s"
        assert await say(manager, "q6?", identity=named("s")) == answers_alone["token"][6]
        assert len((await manager.list("")).sessions) == 1


async def test_what_is_not_stored_goes_on_but_not_after_a_restart(
    tiny_chat: LanguageModel, tmp_path: Path, answers_alone: Any
) -> None:
    async with managing(tiny_chat, tmp_path, num_slots=1) as manager:
        history = []
        for number in range(5):
            history.append(user(f"q{number}?"))
            await say(manager, "other", identity=Identity("new"))  # takes the only slot
            events = await turn(manager, request(*history, is_stored=False))
            assert end_of(events).usage.num_fed_tokens < 12 + PINNED * (number == 0)
            history.append(assistant(answers_alone["token"][number]))
        session_id = end_of(events).view.session_id
        assert all(s.id != session_id for s in (await manager.list("")).sessions)
    async with managing(tiny_chat, tmp_path) as manager:
        with pytest.raises(SessionNotFoundError):
            await manager.get("", session_id)


async def test_messages_without_an_answer_are_fed_with_the_next_turn(
    tiny_chat: LanguageModel, tmp_path: Path
) -> None:
    async with managing(tiny_chat, tmp_path) as manager:
        await manager.create("", session_id="c", system_prompt=SYSTEM)
        await manager.append("", "c", [user("one"), assistant("two")])
        assert (await manager.get("", "c")).view.num_seen_tokens == len("s:Be kind.~")
        events = await turn(manager, request("three", identity=named("c")))
        assert [m.text for m in (await manager.get("", "c")).messages[1:4]] == [
            "one",
            "two",
            "three",
        ]
        assert end_of(events).usage.num_fed_tokens == PINNED + len("u:one~a:two~u:three~a:")


async def test_export_and_import_say_the_same(tiny_chat: LanguageModel, tmp_path: Path) -> None:
    async with managing(tiny_chat, tmp_path) as manager:
        await chat_of_turns(manager, "s", 8)
        view = await manager.import_("", await manager.export("", "s"))
        assert view.session_id != "s"
        same = [await say(manager, "next?", identity=named(i)) for i in ("s", view.session_id)]
        assert same[0] == same[1]
        with pytest.raises(InputError, match="no exported session"):
            await manager.import_("", b'{"format": "other"}')


async def test_a_message_is_cut_out(tiny_chat: LanguageModel, tmp_path: Path) -> None:
    async with managing(tiny_chat, tmp_path) as manager:
        await chat_of_turns(manager, "s", 3)
        messages = (await manager.get("", "s")).messages
        await manager.delete_message("", "s", messages[3].id)
        left = (await manager.get("", "s")).messages
        assert [m.id for m in left] == [m.id for m in messages if m.id != messages[3].id]
        await say(manager, "q9?", identity=named("s"))
        session = await session_of(manager, "s")
        assert "q1?" not in tiny_chat.tokenizer.decode(session.token_log[:].tolist())


async def test_owners_see_only_their_own(tiny_chat: LanguageModel, tmp_path: Path) -> None:
    async with managing(tiny_chat, tmp_path) as manager:
        mine = await say(manager, "q0?", identity=named("same"), owner="alice")
        await say(manager, "x", identity=named("same"), owner="bob")
        assert (await manager.get("alice", "same")).messages[1].text == "q0?"
        assert (await manager.get("bob", "same")).messages[1].text == "x"
        history = (user("q0?"), assistant(mine), user("q1?"))
        events = await turn(manager, request(*history, owner="bob"))
        assert end_of(events).view.session_id != "same"
        for act in (manager.get, manager.delete, manager.export, manager.fork):
            with pytest.raises(SessionNotFoundError):
                await act("carol", "same")


async def test_n_samples_are_given_and_the_first_is_kept(
    tiny_chat: LanguageModel, tmp_path: Path
) -> None:
    params = SamplingParams(max_new_tokens=6, temperature=1.0, seed=3, n=3)
    async with managing(tiny_chat, tmp_path) as manager:
        events = await turn(manager, request("q?", identity=named("s"), params=params))
        texts = {e.sample: e.message.text for e in events if hasattr(e, "reason")}  # type: ignore[union-attr]
        assert len(set(texts.values())) == 3
        assert (await session_of(manager, "s")).transcript[-1].text == texts[0]
        assert await say(manager, "next?", identity=named("s"))


async def test_questions_about_a_feed_leave_no_trace_in_it(
    tiny_chat: LanguageModel, tmp_path: Path
) -> None:
    feeds = [f"Speaker {number}: hello. " for number in range(8)]

    async def fed(session_id: str, asks: bool) -> tuple[list[int], str]:
        await manager.create("", session_id=session_id, system_prompt=SYSTEM)
        for text in feeds:
            await manager.feed("", session_id, text)
            if asks:
                _ = [e async for e in manager.ask(session_id, request("who?"))]
        answer = [e async for e in manager.ask(session_id, request("what?"))]
        log = (await session_of(manager, session_id)).token_log
        return log[:].tolist(), "".join(getattr(e, "text", "") for e in answer)

    async with managing(tiny_chat, tmp_path) as manager:
        assert await fed("quiet", False) == await fed("asked", True)
        detail = await manager.get("", "quiet")
        assert [m.text for m in detail.messages[1:]] == feeds
        assert detail.view.num_forgotten_tokens > 0


async def test_an_edit_that_the_template_refuses_changes_nothing(
    tiny_chat: LanguageModel, tmp_path: Path, answers_alone: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with managing(tiny_chat, tmp_path) as manager:
        await chat_of_turns(manager, "s", 3)
        before = await manager.get("", "s")
        first = before.messages[2].text
        edit = (user("q0?"), assistant(first), user("other?"))

        async def refuse(*_: Any) -> Any:
            raise InputError("the template refuses")

        with monkeypatch.context() as patch:
            patch.setattr(manager._templates, "encode", refuse)
            with pytest.raises(InputError, match="template refuses"):
                await say(manager, *edit, identity=named("s"), system_prompt="Be brief.")
        assert (await manager.get("", "s")).messages == before.messages
        assert len((await manager.list("")).sessions) == 1
        assert await say(manager, "q3?", identity=named("s")) == answers_alone["token"][3]
    async with managing(tiny_chat, tmp_path) as manager:
        assert await say(manager, "q4?", identity=named("s")) == answers_alone["token"][4]
