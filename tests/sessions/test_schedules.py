"""Turns, edits and deletions in a random order: nothing is lost, neither words nor slots."""

from __future__ import annotations

import asyncio
import contextlib
import random
from pathlib import Path
from typing import Any

import pytest

from streamingllm import LanguageModel
from streamingllm.errors import InputError, SessionNotFoundError
from streamingllm.sessions.manager import SessionManager
from streamingllm.sessions.turn import Identity
from streamingllm.stream.sampling import SamplingParams
from tests.sessions.managers import (
    SYSTEM,
    assistant,
    chat_of_turns,
    managing,
    named,
    request,
    say,
    session_of,
    text_of,
    turn,
    user,
)

pytestmark = pytest.mark.anyio

TIERS = {"host_bytes": 150_000, "disk_bytes": 300_000}


def check_slots(manager: SessionManager) -> None:
    """Check that every slot is free or has a session that is there."""
    residency = manager._residency
    assert not residency.slots.num_waiting
    assert residency.slots.num_free + len(residency.device) == residency.slots.num_slots
    assert all(s.place.stream_id and not s.is_deleted for s in residency.device.values())


async def test_a_deletion_that_waits_for_a_turn_while_another_waits_for_its_slot(
    tiny_chat: LanguageModel, tmp_path: Path
) -> None:
    async with managing(tiny_chat, tmp_path, num_slots=1) as manager:
        for _ in range(4):
            running = manager.respond(request("a?", identity=named("a")))
            await anext(running)
            session = await session_of(manager, "a")

            async def delete(session: Any = session) -> None:
                async with session.lock:
                    await manager._discard(session)

            others = [asyncio.create_task(delete())]
            others.append(asyncio.create_task(say(manager, "b?", identity=named("b"))))
            await asyncio.sleep(0.05)
            _ = [event async for event in running]
            await asyncio.gather(*others)
            await manager.delete("", "b")
        check_slots(manager)


async def test_a_turn_that_is_cancelled_while_it_waits_leaves_no_slot_behind(
    tiny_chat: LanguageModel, tmp_path: Path
) -> None:
    rng = random.Random(1)
    async with managing(tiny_chat, tmp_path, num_slots=1, **TIERS) as manager:
        await chat_of_turns(manager, "long", 4)
        for number in range(60):
            tasks = [
                asyncio.create_task(say(manager, "q?", identity=named(f"s{number % 5}-{k}")))
                for k in range(3)
            ]
            for _ in range(rng.randrange(40)):
                await asyncio.sleep(0)
            if rng.random() < 0.5:
                await asyncio.sleep(rng.random() * 0.02)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        async with asyncio.timeout(30):
            assert await say(manager, "still?", identity=named("long"))
        check_slots(manager)


async def test_a_turn_gets_the_slot_of_a_session_that_was_held_for_a_moment(
    tiny_chat: LanguageModel, tmp_path: Path
) -> None:
    async with managing(tiny_chat, tmp_path, num_slots=1) as manager:
        await say(manager, "a?", identity=named("a"))
        held = (await session_of(manager, "a")).lock
        await held.acquire()  # as a rewind, an export or a snapshot does
        waiting = asyncio.create_task(say(manager, "b?", identity=named("b")))
        while not manager._residency.slots.num_waiting:
            await asyncio.sleep(0)
        held.release()
        async with asyncio.timeout(30):
            assert await waiting
        check_slots(manager)


async def test_a_history_finds_the_one_session_that_was_loaded_in_place_of_another(
    tiny_chat: LanguageModel, tmp_path: Path
) -> None:
    async with managing(tiny_chat, tmp_path, num_slots=1, host_bytes=0) as manager:
        first = await say(manager, "q0?")
        history = [user("q0?"), assistant(first), user("q1?")]
        await say(manager, "other", identity=Identity("new"))  # takes the only slot
        (old,) = [
            s for s in manager._table if s.transcript.num_turns and s.transcript[1].text == "q0?"
        ]
        await old.lock.acquire()
        waiting = asyncio.create_task(say(manager, *history))
        while old.lock._num_wanting < 2:
            await asyncio.sleep(0)
        manager._table._sessions.pop(old.key)  # as if it rested when the waiting began
        old.lock.release()
        await waiting
        session = await session_of(manager, old.id)
        assert session is not old
        assert session.transcript.num_turns == 2
        manager._table.forget(old)
        assert manager._table.holds(session)


async def test_a_session_that_was_only_created_keeps_its_system_prompt(
    tiny_chat: LanguageModel, tmp_path: Path
) -> None:
    async with managing(tiny_chat, tmp_path) as manager:
        expected = await say(manager, "q?", identity=named("whole"))
        await manager._branching.create("", "cut", system_prompt=SYSTEM)  # and the server died
    async with managing(tiny_chat, tmp_path) as manager:
        assert await say(manager, "q?", identity=named("cut")) == expected
        messages = [(await manager.get("", name)).messages for name in ("whole", "cut")]
        assert [m.text for m in messages[0]] == [m.text for m in messages[1]]


async def test_two_first_turns_at_once_are_both_durable(
    tiny_chat: LanguageModel, tmp_path: Path
) -> None:
    names = [f"s{number}" for number in range(30)]
    async with managing(tiny_chat, tmp_path) as manager:
        for name in names:
            asked = (say(manager, f"q{k}?", identity=named(name)) for k in range(3))
            await asyncio.gather(*asked)
    async with managing(tiny_chat, tmp_path) as manager:
        for name in names:
            said = [m.text for m in (await manager.get("", name)).messages]
            assert sorted(said[1::2]) == ["q0?", "q1?", "q2?"], name


@pytest.mark.parametrize("wrong", [{"messages": "x" * 300}, {"system_prompt": "x" * 40}])
async def test_a_refused_edit_leaves_the_session_as_it_was(
    tiny_chat: LanguageModel, tmp_path: Path, wrong: dict[str, Any]
) -> None:
    async with managing(tiny_chat, tmp_path, max_message_characters=200) as manager:
        await chat_of_turns(manager, "s", 3)
        before = await manager.get("", "s")
        edit = (*before.messages[1:3], user(wrong.get("messages", "new?")))
        fields = {k: v for k, v in wrong.items() if k != "messages"}
        with pytest.raises(InputError):
            await say(manager, *edit, identity=named("s"), **fields)
        assert (await manager.get("", "s")).messages == before.messages
        assert len((await manager.list("")).sessions) == 1


class Schedule:
    """Do random things to one session at a time, each session as a plain list foresees.

    Args:
        manager: of the sessions.
        name: of the session.
        rng: chooses.
        expected: answers of a session that is only talked to, by its questions.
    """

    def __init__(self, manager: SessionManager, name: str, rng: random.Random) -> None:
        self.manager, self.name, self.rng = manager, name, rng
        self.said: list[str] = []
        self.count = 0

    async def run(self, num_steps: int) -> None:
        for _ in range(num_steps):
            act = self.rng.choice((self.talk, self.talk, self.talk, self.leave, self.both))
            if self.said:
                act = self.rng.choice((act, act, self.rewind, self.fork, self.stop, self.delete))
            await act()
            if self.said:
                await self.check()

    async def check(self) -> None:
        texts = [m.text for m in (await self.manager.get("", self.name)).messages][1:]
        assert texts == self.said, self.name

    def question(self) -> str:
        self.count += 1
        return f"{self.name} {self.count}?"

    async def talk(self) -> None:
        question = self.question()
        self.said += [question, await say(self.manager, question, identity=named(self.name))]

    async def both(self) -> None:
        """Ask twice at once: the turns follow each other."""
        questions = [self.question(), self.question()]
        asked = [say(self.manager, q, identity=named(self.name)) for q in questions]
        answers = await asyncio.gather(*asked)
        for question, answer in zip(questions, answers, strict=True):
            self.said += [question, answer]
        texts = [m.text for m in (await self.manager.get("", self.name)).messages][1:]
        assert sorted(texts) == sorted(self.said)
        self.said = texts

    async def leave(self) -> None:
        """Go away after a moment; the manager rolls back."""
        endless = SamplingParams(max_new_tokens=None)
        events = self.manager.respond(
            request(self.question(), identity=named(self.name), params=endless)
        )
        with contextlib.suppress(StopAsyncIteration):
            for _ in range(self.rng.randrange(4)):
                await anext(events)
        await events.aclose()
        if not self.said:  # it may have been made, or not
            with contextlib.suppress(SessionNotFoundError):
                await self.manager.delete("", self.name)

    async def stop(self) -> None:
        question, events = self.question(), []
        asked = request(
            question, identity=named(self.name), params=SamplingParams(max_new_tokens=None)
        )
        async for event in self.manager.respond(asked):
            events.append(event)
            if len(events) == 3:
                await self.manager.stop("", self.name)
        self.said += [question, text_of(events)]

    async def rewind(self) -> None:
        num_turns = self.rng.randint(0, len(self.said) // 2)
        await self.manager.rewind("", self.name, num_turns=num_turns)
        self.said = self.said[: len(self.said) - 2 * num_turns]

    async def fork(self) -> None:
        view = await self.manager.fork("", self.name)
        branch = await self.manager.get("", view.session_id)
        assert [m.text for m in branch.messages][1:] == self.said
        await self.manager.delete("", view.session_id)

    async def delete(self) -> None:
        """Delete, sometimes while it answers."""
        if self.rng.random() < 0.5:
            asked = request("last?", identity=named(self.name))
            running = asyncio.create_task(turn(self.manager, asked))
            await asyncio.sleep(self.rng.random() * 0.01)
            await self.manager.delete("", self.name)
            await asyncio.gather(running, return_exceptions=True)
        with contextlib.suppress(SessionNotFoundError):
            await self.manager.delete("", self.name)
        with pytest.raises(SessionNotFoundError):
            await self.manager.get("", self.name)
        self.said = []


@pytest.mark.parametrize("seed", range(4))
async def test_sessions_hold_what_a_plain_list_foresees(
    tiny_chat: LanguageModel, tmp_path: Path, seed: int
) -> None:
    settings: dict[str, Any] = {**TIERS, "on_disconnect": "rollback"}
    async with managing(tiny_chat, tmp_path, **settings) as manager:
        schedules = [Schedule(manager, f"s{k}", random.Random(10 * seed + k)) for k in range(5)]
        await asyncio.gather(*(schedule.run(25) for schedule in schedules))
        stats = await manager.stats()
        assert stats.num_bytes["host"] <= TIERS["host_bytes"]
        assert stats.num_bytes["disk"] <= TIERS["disk_bytes"]
        check_slots(manager)
    async with managing(tiny_chat, tmp_path, **settings) as manager:
        for schedule in schedules:
            schedule.manager = manager
            if schedule.said:
                await schedule.check()
