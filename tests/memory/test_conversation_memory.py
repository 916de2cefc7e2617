"""A memory that follows conversations at a terminal, with their branches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from streamingllm import LanguageModel
from streamingllm.errors import ConfigError
from streamingllm.memory.conversation_memory import ConversationMemory, recalled_context
from streamingllm.sessions import Conversation

SECRET = "My hamster is called Napoleon."
QUESTION = "What is my hamster called?"
CACHE = 600


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[ConversationMemory]:
    following = ConversationMemory(tmp_path / "memory.db", recall_share=0.3)
    yield following
    following.close()


@pytest.fixture
def conversation(tiny_chat: LanguageModel) -> Conversation:
    return Conversation(tiny_chat, system_prompt="Be kind.", cache_size=CACHE)


def say(conversation: Conversation, text: str, context: str = "") -> str:
    return "".join(conversation.say(text, max_new_tokens=3, context=context))


def tell_and_forget(conversation: Conversation) -> None:
    """Tell the secret and other things, until it has left the window."""
    say(conversation, SECRET)
    number = 0
    while conversation.visibility.num_forgotten_turns < 2:
        say(conversation, f"The weather of day {number} was dull again, and nothing happened.")
        number += 1


def test_what_left_the_window_is_fed_before_the_message(
    memory: ConversationMemory, conversation: Conversation
) -> None:
    tell_and_forget(conversation)
    found = memory.recall(conversation, QUESTION)
    assert found.texts[0].text == SECRET
    assert found.texts[0].words == ("hamster", "call")
    plain = conversation.fork()
    context = recalled_context(found.texts)
    before = len(conversation.token_log)
    say(conversation, QUESTION, context)
    say(plain, f"{context}\n{QUESTION}")
    fed, expected = (one.token_log[before:].tolist() for one in (conversation, plain))
    assert fed == expected
    assert SECRET in conversation.lm.decode(fed)
    assert conversation.turns[-1].user == QUESTION
    assert conversation.turns[-1].stop == conversation.stream.num_seen_tokens


def test_what_is_visible_is_not_recalled(
    memory: ConversationMemory, conversation: Conversation
) -> None:
    say(conversation, SECRET)
    say(conversation, "And the dull weather?")
    assert not memory.recall(conversation, QUESTION).texts
    assert recalled_context(()) == ""


def test_recalled_texts_keep_within_their_share(
    memory: ConversationMemory, conversation: Conversation
) -> None:
    for number in range(30):
        say(conversation, f"My hamster number {number} is called Napoleon the {number}th of Elba.")
    found = memory.recall(conversation, QUESTION)
    assert 0 < len(conversation.lm.encode(recalled_context(found.texts))) <= 0.3 * CACHE


def test_what_was_taken_back_is_forgotten_and_branches_are_apart(
    memory: ConversationMemory, conversation: Conversation
) -> None:
    branch = conversation.fork()
    tell_and_forget(conversation)
    tell_and_forget(branch)
    assert memory.recall(conversation, QUESTION).texts
    conversation.reread(conversation.transcript.num_turns)
    say(conversation, "Something else, at last.")
    assert not memory.recall(conversation, QUESTION).texts
    assert memory.recall(branch, QUESTION).texts


def test_a_loaded_conversation_is_remembered(
    memory: ConversationMemory, conversation: Conversation, tmp_path: Path
) -> None:
    tell_and_forget(conversation)
    conversation.save(tmp_path / "kept.chat")
    loaded = Conversation.load(conversation.lm, tmp_path / "kept.chat")
    assert memory.recall(loaded, QUESTION).texts[0].text == SECRET
    assert memory.recall(loaded, "Where does the crocodile live?").is_not_found


def test_a_share_out_of_range_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="recall_share=0 is out of range"):
        ConversationMemory(tmp_path / "memory.db", recall_share=0)
