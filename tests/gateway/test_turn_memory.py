"""Each message of a session is kept once, however much of it a client sends again."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streamingllm.errors import InputError
from streamingllm.gateway.seen_messages import Told
from streamingllm.gateway.session_log import SessionLog
from streamingllm.gateway.sessions import GatewaySessions
from streamingllm.gateway.token_count import estimated_tokens
from streamingllm.gateway.turn_memory import Asked, Turn, TurnMemory
from streamingllm.sessions.turn import Identity

SYSTEM = Told("system", "Be brief.")


def user(text: str) -> Told:
    return Told("user", text)


def answer(text: str) -> Told:
    return Told("assistant", text)


@pytest.fixture
def turns(tmp_path: Path) -> Iterator[TurnMemory]:
    log = SessionLog(tmp_path / "gateway.sqlite")
    yield TurnMemory(log, 400)
    log.close()


def texts(turns: TurnMemory, session: str = "s") -> list[str]:
    """Texts of the log; those of the memory are the same."""
    log = turns.log
    if (summary := log.find("me", session)) is None:
        return []
    kept = [message.text for message in log.store.get(summary.id).transcript]
    assert [piece.text for piece in log.memory.memory.messages(summary.id)] == kept
    assert len(log.seen.sizes(summary.id)) == len(kept)
    return kept


def begin(
    turns: TurnMemory,
    messages: list[Told],
    *,
    session: str | None = "s",
    chat: str = "",
    is_retry: bool = False,
    owner: str = "me",
) -> Turn:
    identity = Identity("chat", chat) if chat else Identity()
    if session is not None and not chat:
        identity = Identity("session", session)
    return turns.begin(Asked(owner, identity, tuple(messages), is_retry))


def say(turns: TurnMemory, messages: list[Told], said: str, **asked: Any) -> str:
    return turns.end(begin(turns, messages, **asked), said)


@pytest.mark.parametrize("num_sent", [1, 3, 5, 1000], ids=["last", "short", "longer", "all"])
@pytest.mark.parametrize("repeats", [False, True], ids=["different", "repeating"])
def test_a_session_is_kept_once_whatever_part_a_client_sends(
    turns: TurnMemory, num_sent: int, repeats: bool
) -> None:
    chosen, history = random.Random(num_sent), []
    for number in range(25):
        said = chosen.choice(["yes", "no", "go on"]) if repeats else f"question {number}"
        history.append(user(f"{said} {number}" if number == 0 else said))
        say(turns, [SYSTEM, *history[-num_sent:]], f"answer {number}")
        history.append(answer(f"answer {number}"))
    assert texts(turns) == [one.text for one in history]


@pytest.mark.parametrize("is_marked", [False, True])
def test_a_retry_replaces_the_answer(turns: TurnMemory, is_marked: bool) -> None:
    history = [user("one"), answer("1"), user("two")]
    say(turns, history[:1], "1")
    say(turns, history, "2")
    say(turns, history[2:] if is_marked else history, "two again", is_retry=is_marked)
    assert texts(turns) == ["one", "1", "two", "two again"]


def test_the_same_words_said_again_are_a_turn_of_their_own(turns: TurnMemory) -> None:
    for number in range(3):
        say(turns, [user("go on")] if number else [user("begin")], f"answer {number}")
    assert texts(turns) == ["begin", "answer 0", "go on", "answer 1", "go on", "answer 2"]


def test_a_turn_that_failed_leaves_nothing(turns: TurnMemory) -> None:
    begin(turns, [user("one")])
    assert texts(turns) == []
    say(turns, [user("one")], "1")
    assert texts(turns) == ["one", "1"]


def test_a_history_from_elsewhere_is_kept_too(turns: TurnMemory) -> None:
    say(turns, [user("my dog is Rex"), answer("a fine name"), user("and now?")], "Good.")
    assert texts(turns) == ["my dog is Rex", "a fine name", "and now?", "Good."]


def test_answers_that_come_back_stripped_are_known(turns: TurnMemory) -> None:
    say(turns, [user("one")], " 1 \n")
    say(turns, [user("one"), answer("1"), user("two")], "2")
    assert texts(turns) == ["one", "1", "two", "2"]


def test_only_what_the_request_does_not_hold_is_recalled(turns: TurnMemory) -> None:
    history = [user("My hamster is called Napoleon."), answer("A fine name.")]
    say(turns, history[:1], "A fine name.")
    asked = user("What is my hamster called?")
    with_all = begin(turns, [*history, asked])
    assert with_all.recall.texts == ()
    assert with_all.block == ""
    piece, *_ = begin(turns, [asked]).recall.texts
    assert piece.text == "My hamster is called Napoleon."
    assert piece.position == 0
    assert piece.words == ("hamster", "call")
    assert begin(turns, [asked], session="other").recall.texts == ()


def test_words_that_nobody_said_are_named(turns: TurnMemory) -> None:
    say(turns, [user("My hamster is small.")], "Is it?")
    recall = begin(turns, [user("Where is my crocodile?")]).recall
    assert (recall.unknown_words, recall.is_not_found) == (("crocodil",), True)
    told = [user("My crocodile is big."), answer("Oh."), user("Where is my crocodile?")]
    foreign = begin(turns, told, session="other").recall
    assert (foreign.unknown_words, foreign.is_not_found) == ((), False)


def test_a_forgotten_message_is_gone(turns: TurnMemory, tmp_path: Path) -> None:
    say(turns, [user("The code is zanzibar.")], "Noted.")
    sessions = GatewaySessions(turns.log)
    first, _ = sessions.get("me", "s").messages
    sessions.forget("me", "s", [first.id])
    with pytest.raises(InputError, match="is not in the session"):
        sessions.forget("me", "s", [first.id])
    assert texts(turns) == ["Noted."]
    say(turns, [user("And zanzibar?")], "Yes.")
    sessions.delete("me", "s")
    assert texts(turns) == []
    held = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert b"zanzibar" not in held


def test_a_history_finds_its_session(turns: TurnMemory) -> None:
    history, ids = [SYSTEM], set()
    for number in range(5):
        history.append(user(f"question {number}"))
        ids.add(say(turns, history, f" answer {number}\n", session=None))
        history.append(answer(f"answer {number}"))
    (found,) = ids
    assert texts(turns, found) == [one.text for one in history[1:]]
    other = say(turns, history[:2], "another", session=None)
    assert other != found
    assert say(turns, [*history[:3], user("x")], "x", session=None, owner="you") not in {
        found,
        other,
    }


def test_a_history_that_was_edited_goes_on_in_a_branch(turns: TurnMemory) -> None:
    told = [user("My dog is Rex."), answer("Fine."), user("My cat is Tom."), answer("Good.")]
    for number in (1, 3):
        first = say(turns, told[:number], told[number].text, session=None)
    edited = [*told[:2], user("My cat is Kim.")]
    branch = say(turns, edited, "Nice.", session=None)
    assert texts(turns, first) == [one.text for one in told]
    assert texts(turns, branch) == ["My dog is Rex.", "Fine.", "My cat is Kim.", "Nice."]
    detail = GatewaySessions(turns.log).get("me", branch)
    assert (detail.info.parent_id, detail.info.num_shared_messages) == (first, 2)
    assert [info.id for info in detail.branches] == [first]

    asked = begin(turns, [*edited, answer("Nice."), user("What is my cat called?")], session=None)
    assert asked.recall.texts == ()  # all that the branch says is in the request
    assert asked.view.session_id == branch


def test_a_branch_recalls_what_it_shares_only(turns: TurnMemory) -> None:
    told = [user("My dog is Rex."), answer("Fine."), user("My cat is Tom."), answer("Good.")]
    for number in (1, 3):
        say(turns, told[:number], told[number].text, session=None)
    asked = Asked("me", Identity(), (*told[:2], user("What are my dog and my cat called?")))
    turn = turns.begin(asked, [asked.told[-1]])
    assert [text.text for text in turn.recall.texts] == ["My dog is Rex.", "Fine."]


def test_an_answer_is_given_again_to_the_same_history(turns: TurnMemory) -> None:
    history = [user("one"), answer("1"), user("two")]
    first = say(turns, history[:1], "1", session=None)
    assert say(turns, history, "2", session=None) == first
    assert say(turns, history, "two again", session=None) == first
    assert texts(turns, first) == ["one", "1", "two", "two again"]
    begun = say(turns, [user("begin")], "a", session=None)
    assert say(turns, [user("begin")], "b", session=None) != begun
    retried = say(turns, [user("begin")], "c", session=None, is_retry=True)
    assert texts(turns, retried) == ["begin", "c"]


def test_a_message_keeps_the_id_that_its_answer_told(turns: TurnMemory) -> None:
    turn = begin(turns, [user("one")], session=None)
    name = turns.end(turn, "1")
    first, second = GatewaySessions(turns.log).get("me", name).messages
    assert (turn.view.first_visible_message_id, turn.answer_id) == (first.id, second.id)


def test_chats_of_a_client_keep_apart(turns: TurnMemory) -> None:
    history = [user("one"), answer("1"), user("two")]
    ids = [say(turns, history[:1], "1", chat=chat) for chat in ("a", "b")]
    again = [say(turns, history, "2", chat=chat) for chat in ("a", "b", "c")]
    assert again[:2] == ids
    assert len({*again, *ids}) == 3


def test_a_session_that_went_on_meanwhile_is_left_as_it_is(turns: TurnMemory) -> None:
    history = [user("one"), answer("1")]
    first = say(turns, history[:1], "1", session=None)
    slow, quick = (begin(turns, [*history, user(text)], session=None) for text in ("a", "b"))
    assert slow.view.session_id == quick.view.session_id == first
    assert turns.end(quick, "quick") == first
    branch = turns.end(slow, "slow")
    assert texts(turns, first) == ["one", "1", "b", "quick"]
    assert texts(turns, branch) == ["one", "1", "a", "slow"]


@pytest.mark.parametrize("session", ["s", None])
def test_a_view_counts_what_was_sent(turns: TurnMemory, session: str | None) -> None:
    history = [SYSTEM]
    for number in range(4):
        history.append(user(f"question {number}"))
        say(turns, history, "so", session=session)
        history.append(answer("so"))
    told = (*history, user("and now"))
    identity = Identity() if session is None else Identity("session", session)
    sent = (SYSTEM, *told[5:])
    turn = turns.begin(Asked("me", identity, told), sent)
    sizes = [8 + estimated_tokens(one.text) for one in told]
    assert turn.view.num_seen_tokens == sum(sizes)
    assert turn.view.num_forgotten_tokens == sum(sizes[1:5])
    assert turn.view.num_pinned_tokens == sizes[0]
    assert turn.view.first_visible_message == 5
    name = turns.end(turn, "yes")
    detail = GatewaySessions(turns.log).get("me", name)
    assert detail.view.num_forgotten_tokens == sum(sizes[1:5])
    assert detail.view.num_seen_tokens == sum(sizes) + 8 + estimated_tokens("yes")
    assert detail.view.first_visible_message == 5
    assert detail.view.first_visible_message_id == turn.view.first_visible_message_id
    assert [message.text for message in detail.messages] == [*(one.text for one in told), "yes"]
