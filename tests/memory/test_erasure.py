"""Forget messages: no file, no export and no state of the process has them afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from streamingllm import LanguageModel
from streamingllm.engine import StreamState
from streamingllm.errors import FactNotFoundError, InputError, SessionNotFoundError
from streamingllm.sessions.facts import prompt_with_facts
from streamingllm.sessions.manager import SessionManager
from streamingllm.sessions.recall import Recall
from streamingllm.sessions.response_store import ResponseRecord
from streamingllm.sessions.session import Session
from streamingllm.sessions.template import ChatTemplate
from tests.memory.remembering import (
    HERE,
    QUESTION,
    SECRET,
    asked,
    fed,
    grep,
    remembering,
    tell_secret,
)
from tests.sessions.managers import SYSTEM, named, request, say, session_of, turn, user

pytestmark = pytest.mark.anyio


def buffers_of(manager: SessionManager) -> list[torch.Tensor]:
    """The keys and values of all slots of the engine, whether a stream has them or not."""
    pool = manager.engine._engine._pool
    return [buffer for store in pool.whole.stores for buffer in store.buffers.values()]


async def state_of(manager: SessionManager, session: Session) -> StreamState:
    assert session.place.stream_id is not None
    return await manager.engine.export_state(session.place.stream_id)


async def ids_of_messages(manager: SessionManager, *texts: str) -> list[str]:
    session = await session_of(manager, "here")
    return [m.id for m in session.transcript if any(text in m.text for text in texts)]


@pytest.mark.parametrize(("eviction", "rewind"), [("token", 300), ("turn", 0)])
async def test_forgotten_words_are_nowhere(
    tiny_chat: LanguageModel, tmp_path: Path, eviction: str, rewind: int
) -> None:
    settings: dict[str, Any] = {"recall_rewind_tokens": rewind, "snapshot_after_seconds": 1e-9}
    async with remembering(tiny_chat, tmp_path, **settings) as manager:
        secret = await tell_secret(manager, eviction=eviction)
        recall = await asked(manager)  # a copy of the secret is in the stream now
        assert recall is not None
        assert recall.texts[0].text == SECRET
        await manager._residency.snapshot_idle(0.0)
        assert grep(tmp_path, "napoleon")
        assert b"Napoleon" in await manager.export("", "here")
        questions = await ids_of_messages(manager, QUESTION)
        assert await manager.forget("", "here", [secret, *questions]) == 2

        assert not grep(tmp_path, "napoleon")
        assert not list((tmp_path / "snapshots").iterdir())
        assert b"Napoleon" not in await manager.export("", "here")
        assert "Napoleon" not in await fed(manager)
        assert not any(buffer.count_nonzero() for buffer in buffers_of(manager))
        assert await asked(manager, QUESTION) == Recall((), ("napoleon",), is_not_found=True)


async def test_what_is_left_is_what_a_session_without_it_would_be(
    tiny_chat: LanguageModel, tmp_path: Path
) -> None:
    async with remembering(tiny_chat, tmp_path / "a", has_memory=False) as manager:
        secret = await tell_secret(manager)
        session = await session_of(manager, "here")
        answer = session.transcript[2].id
        await manager.forget("", "here", [secret, answer])
        left = list(session.transcript)[1:]
        assert all(m.stop > m.first for m in left)  # all are fed, none waits
        told = await say(manager, "Zzz.", identity=HERE)
        ids, state = session.token_log[0:], await state_of(manager, session)
    async with remembering(tiny_chat, tmp_path / "b", has_memory=False) as manager:
        history = [user(m.text) if m.role == "user" else m for m in left]
        same = await say(manager, *history, "Zzz.", identity=HERE)
        session = await session_of(manager, "here")
        assert session.token_log[0:] == ids
        assert same == told
        other = await state_of(manager, session)
        assert other.token_tail == state.token_tail
        assert other.cache is not None
        assert state.cache is not None
        assert other.cache.positions == state.cache.positions
        torch.testing.assert_close(other.cache.buffers, state.cache.buffers)


async def test_branches_forget_too(tiny_chat: LanguageModel, tmp_path: Path) -> None:
    async with remembering(tiny_chat, tmp_path) as manager:
        secret = await tell_secret(manager)
        branch = await manager.fork("", "here")
        await say(manager, "In the branch.", identity=named(branch.session_id))
        assert await manager.forget("", "here", [secret]) == 2
        assert not grep(tmp_path, "napoleon")
        texts = [m.text for m in (await manager.get("", branch.session_id)).messages]
        assert texts[-2] == "In the branch."
        assert SECRET not in texts


async def test_responses_that_repeat_a_forgotten_message_go(
    tiny_chat: LanguageModel, tmp_path: Path
) -> None:
    async with remembering(tiny_chat, tmp_path) as manager:
        await say(manager, 'She said "Ödön".', identity=HERE)
        await say(manager, "Another.", identity=HERE)
        said, other = await ids_of_messages(manager, "She said", "Another")
        bodies = {"resp_a": '"She said \\"Ödön\\"."', "resp_b": f'{{"message_id": "{said}"}}'}
        bodies |= {"resp_c": '"She said \\"\\u00d6d\\u00f6n\\"."', "resp_d": f'"{other}"'}
        for name, body in bodies.items():
            manager.responses.put(
                ResponseRecord(name, "", "here", None, "completed", body, "[]", 0.0, 1e12)
            )
        manager.responses.append_events("resp_d", 0, ["nothing of it"])
        await manager.forget("", "here", [said])
        assert not grep(tmp_path, "Ödön")
        assert manager.responses.get("", "resp_d").body == bodies["resp_d"]
        assert manager.responses.count() == 1


async def test_a_title_made_of_a_forgotten_message_goes(
    tiny_chat: LanguageModel, tmp_path: Path
) -> None:
    async with remembering(tiny_chat, tmp_path) as manager:
        await say(manager, SECRET, identity=HERE)
        await manager.update("", "here", {"title": "The hamster is called…", "colour": "red"})
        await manager.forget("", "here", await ids_of_messages(manager, SECRET))
        assert (await manager.get("", "here")).info.metadata == {"colour": "red"}
        assert not grep(tmp_path, "hamster")


async def test_messages_keep_the_time_when_they_were_said(
    tiny_chat: LanguageModel, tmp_path: Path
) -> None:
    async with remembering(tiny_chat, tmp_path) as manager:
        secret = await tell_secret(manager)
        recall = await asked(manager)
        assert recall is not None
        said_at = recall.texts[0].seconds
        first = await ids_of_messages(manager, "about place 0.")
        await manager.pin_fact("", "here", "Be brief.")  # every row is written again
        await manager.forget("", "here", first)
        branch = await manager.fork("", "here")
        for session_id in ("here", branch.session_id):
            recall = await asked(manager, session_id=session_id)
            assert recall is not None
            assert recall.texts[0].message_id == secret
            assert recall.texts[0].seconds == said_at


async def test_what_cannot_be_forgotten_is_refused(
    tiny_chat: LanguageModel, tmp_path: Path
) -> None:
    async with remembering(tiny_chat, tmp_path) as manager:
        await say(manager, SECRET, identity=HERE)
        before = await manager.export("", "here")
        for message_id in ("msg_nobody", (await session_of(manager, "here")).transcript[0].id):
            with pytest.raises(InputError, match="message_id="):
                await manager.forget("", "here", [message_id])
        with pytest.raises(SessionNotFoundError):
            await manager.forget("somebody", "here", ["msg_nobody"])
        assert await manager.export("", "here") == before


async def test_a_fact_joins_the_pinned_prefix(tiny_chat: LanguageModel, tmp_path: Path) -> None:
    async with remembering(tiny_chat, tmp_path, max_pinned=200) as manager:
        await tell_secret(manager)
        fact = await manager.pin_fact("", "here", "  The hamster\n eats hay.  ")
        session = await session_of(manager, "here")
        prompt = prompt_with_facts(SYSTEM, [fact])
        assert prompt.endswith("- The hamster eats hay.")
        opening = ChatTemplate(tiny_chat, prompt).opening_ids()
        assert session.token_log[: session.num_pinned_tokens].tolist() == opening
        await say(manager, "Go on.", identity=HERE)
        state = await state_of(manager, session)
        assert state.num_pinned_tokens == len(opening)
        assert (await manager.get("", "here")).messages[0].text == prompt
    async with remembering(tiny_chat, tmp_path, max_pinned=200) as manager:
        assert (await manager.get("", "here")).facts == (fact,)
        archive = await manager.export("", "here")
        view = await manager.import_("", archive)
        (copy,) = (await manager.get("", view.session_id)).facts
        assert copy.text == fact.text


async def test_facts_are_corrected_and_unpinned(tiny_chat: LanguageModel, tmp_path: Path) -> None:
    async with remembering(tiny_chat, tmp_path, max_pinned=200) as manager:
        await say(manager, "a", identity=HERE)
        session = await session_of(manager, "here")
        opening = session.token_log[: session.num_pinned_tokens]
        fact = await manager.pin_fact("", "here", "Napoleon is a hamster.")
        other = await manager.pin_fact("", "here", "Hay is food.")
        await say(manager, "b", identity=HERE)
        fixed = await manager.correct_fact("", "here", fact.id, "Wellington is a hamster.")
        assert fixed.id == fact.id
        assert not grep(tmp_path, "Napoleon")
        assert "Wellington" in await fed(manager)
        assert not any(buffer.count_nonzero() for buffer in buffers_of(manager))
        await manager.unpin_fact("", "here", fact.id)
        await manager.unpin_fact("", "here", other.id)
        assert not grep(tmp_path, "Wellington")
        assert session.token_log[: session.num_pinned_tokens] == opening
        for change in (
            manager.unpin_fact("", "here", fact.id),
            manager.correct_fact("", "here", fact.id, "x"),
        ):
            with pytest.raises(FactNotFoundError, match="fact_id="):
                await change


async def test_a_fact_goes_with_its_message(tiny_chat: LanguageModel, tmp_path: Path) -> None:
    async with remembering(tiny_chat, tmp_path, max_pinned=200) as manager:
        secret = await tell_secret(manager)
        await manager.pin_fact("", "here", "The hamster is Napoleon.", secret)
        kept = await manager.pin_fact("", "here", "Hay is food.")
        await manager.forget("", "here", [secret])
        assert (await manager.get("", "here")).facts == (kept,)
        assert not grep(tmp_path, "napoleon")


@pytest.mark.parametrize("text", ["", " \n", "x" * 2001, "many words " * 10])
async def test_facts_that_do_not_fit_are_refused(
    tiny_chat: LanguageModel, tmp_path: Path, text: str
) -> None:
    async with remembering(tiny_chat, tmp_path) as manager:
        await say(manager, SECRET, identity=HERE)
        before = await manager.export("", "here")
        with pytest.raises(InputError, match=r"send a fact of|max_pinned_tokens="):
            await manager.pin_fact("", "here", text)
        with pytest.raises(InputError, match="message_id="):
            await manager.pin_fact("", "here", "a", "msg_nobody")
        assert await manager.export("", "here") == before


async def test_a_request_with_another_system_prompt_keeps_the_facts(
    tiny_chat: LanguageModel, tmp_path: Path
) -> None:
    async with remembering(tiny_chat, tmp_path, max_pinned=200) as manager:
        await say(manager, "a", identity=HERE)
        await manager.pin_fact("", "here", "Hay is food.")
        await turn(manager, request("b", identity=HERE, system_prompt="Be short."))
        session = await session_of(manager, "here")
        assert session.transcript[0].text == prompt_with_facts("Be short.", session.facts)
        assert "Hay is food." in (await fed(manager))[: session.num_pinned_tokens]
