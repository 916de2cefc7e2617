"""Each message of a session is kept once, however much of it a client sends again."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamingllm.gateway.seen_messages import Told
from streamingllm.gateway.turn_memory import TurnMemory

SYSTEM = Told("system", "Be brief.")


def user(text: str) -> Told:
    return Told("user", text)


def answer(text: str) -> Told:
    return Told("assistant", text)


@pytest.fixture
def turns(tmp_path: Path) -> Iterator[TurnMemory]:
    opened = TurnMemory(tmp_path / "gateway.sqlite", 400)
    yield opened
    opened.close()


def texts(turns: TurnMemory, session: str = "s") -> list[str]:
    return [piece.text for piece in turns.memory.messages(session)]


def say(turns: TurnMemory, messages: list[Told], said: str, *, is_retry: bool = False) -> None:
    turns.end(turns.begin("s", messages, is_retry=is_retry), said)


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
    turns.begin("s", [user("one")])
    assert texts(turns) == []
    say(turns, [user("one")], "1")
    assert texts(turns) == ["one", "1"]


def test_a_history_from_elsewhere_is_kept_too(turns: TurnMemory) -> None:
    say(turns, [user("my dog is Rex"), answer("a fine name"), user("and now?")], "Good.")
    assert texts(turns) == ["my dog is Rex", "a fine name", "and now?", "Good."]


def test_answers_that_come_back_stripped_are_known(turns: TurnMemory) -> None:
    say(turns, [user("one")], " 1 \n")
    say(turns, [user("one"), answer("1"), user("two")], "2")
    assert texts(turns) == ["one", " 1 \n", "two", "2"]


def test_only_what_the_request_does_not_hold_is_recalled(turns: TurnMemory) -> None:
    history = [user("My hamster is called Napoleon."), answer("A fine name.")]
    say(turns, history[:1], "A fine name.")
    asked = user("What is my hamster called?")
    with_all = turns.begin("s", [*history, asked])
    assert with_all.recalled == ()
    assert with_all.block == ""
    piece, *_ = turns.begin("s", [asked]).recalled
    assert piece.text == "My hamster is called Napoleon."
    assert turns.begin("other", [asked]).recalled == ()


def test_words_that_nobody_said_are_named(turns: TurnMemory) -> None:
    say(turns, [user("My hamster is small.")], "Is it?")
    assert turns.begin("s", [user("Where is my crocodile?")]).unknown_words == ("crocodil",)


def test_a_forgotten_message_is_gone(turns: TurnMemory, tmp_path: Path) -> None:
    say(turns, [user("The code is zanzibar.")], "Noted.")
    (first, _) = turns.memory.messages("s")
    assert turns.forget("s", first.message_id)
    assert not turns.forget("s", first.message_id)
    assert texts(turns) == ["Noted."]
    turns.forget_session("s")
    assert texts(turns) == []
    held = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert b"zanzibar" not in held
