"""A first message that is edited: its chat goes on, and the one before it too."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamingllm import LanguageModel
from streamingllm.sessions.turn import Identity
from tests.sessions.managers import (
    assistant,
    end_of,
    managing,
    request,
    say,
    text_of,
    turn,
    user,
)

pytestmark = pytest.mark.anyio

# A session that a header names takes a first message alone as the next one.
KINDS = {"transcript": Identity(), "chat": Identity("chat", "chat-1")}


async def answers(lm: LanguageModel, folder: Path, first: str) -> list[str]:
    """The answers of a chat that was never edited."""
    async with managing(lm, folder) as manager:
        history, found = [user(first)], []
        for number in range(3):
            found.append(await say(manager, *history))
            history += [assistant(found[-1]), user(f"q{number + 1}?")]
        return found


@pytest.mark.parametrize("kind", KINDS)
async def test_a_chat_whose_first_message_is_edited_goes_on(
    tiny_chat: LanguageModel, tmp_path: Path, kind: str
) -> None:
    identity = KINDS[kind]
    old, new = [await answers(tiny_chat, tmp_path / text, text) for text in ("old?", "new?")]
    async with managing(tiny_chat, tmp_path / "edited") as manager:
        history = [user("old?")]
        for number in range(2):
            assert await say(manager, *history, identity=identity) == old[number]
            history += [assistant(old[number]), user(f"q{number + 1}?")]
        edited = [user("new?")]
        for number in range(3):
            events = await turn(manager, request(*edited, identity=identity))
            assert text_of(events) == new[number]
            assert number == 0 or end_of(events).usage.num_fed_tokens < len("~u:q1?~a:") + 2
            edited += [assistant(new[number]), user(f"q{number + 1}?")]
        assert await say(manager, *history, identity=identity) == old[2]
        assert len((await manager.list("")).sessions) == 2


@pytest.mark.parametrize("kind", KINDS)
async def test_an_answer_to_an_edited_first_message_is_continued(
    tiny_chat: LanguageModel, tmp_path: Path, kind: str
) -> None:
    """The history ends with the answer that was cut off, as pages and Anthropic's clients send."""
    identity, cut_off = KINDS[kind], (user("new?"), assistant("It is"))
    async with managing(tiny_chat, tmp_path / "apart") as manager:
        rest = await say(manager, *cut_off)
        history = (cut_off[0], assistant(f"It is{rest}"), user("q1?"))
        then = await say(manager, *history)
    async with managing(tiny_chat, tmp_path / "edited") as manager:
        first = await say(manager, "old?", identity=identity)
        assert await say(manager, *cut_off, identity=identity) == rest
        assert await say(manager, *history, identity=identity) == then
        old = (user("old?"), assistant(first), user("q1?"))
        assert end_of(await turn(manager, request(*old, identity=identity))).view.num_messages == 5
        assert len((await manager.list("")).sessions) == 2
