"""Questions about conversations: what each arm is given, and how answers are scored."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.answers import Asked, Line, Told, hear, measure, report, token_f1
from streamingllm import LanguageModel, load_model
from streamingllm.memory import Memory
from tests.reference.tiny_chat import write_tiny_chat

SECRET = "My hamster is called Napoleon."
ASKED = Asked("What is my hamster called?", "Napoleon", frozenset({"secret"}))


@pytest.fixture(scope="module")
def tiny_chat(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return load_model(write_tiny_chat(tmp_path_factory.mktemp("chat")), dtype="float64")


@pytest.fixture
def told() -> Told:
    fillers = [Line(f"d{n}", "Bob", f"The weather of day {n} was dull.", n) for n in range(30)]
    return Told((Line("secret", "Ada", SECRET, 0.0), *fillers), (ASKED,))


def test_each_arm_is_given_what_its_name_says(
    tiny_chat: LanguageModel, told: Told, tmp_path: Path
) -> None:
    with Memory(tmp_path / "memory.db") as memory:
        listener = hear(tiny_chat, memory, told, cache_size=512)
        assert not listener.ask(ASKED.question, recalls=False).recalled
        assert SECRET in [piece.text for piece in listener.ask(ASKED.question).recalled]
        listener.given = [memory.messages("told")[7]]
        assert [piece.message_id for piece in listener.ask(ASKED.question).recalled] == ["d6"]


def test_scores_are_reported_by_arm(tiny_chat: LanguageModel, told: Told) -> None:
    measured = measure(tiny_chat, told, cache_size=512)
    assert {arm: len(scores) for arm, scores in measured.items()} == dict.fromkeys(measured, 1)
    assert set(measured) >= {"window", "memory", "evidence"}
    found = report([measured, measured], seed=0)
    nats = found["window"]["nats_per_answer_token"]
    assert nats["value"] == pytest.approx(measured["window"][0][1])
    assert found["window"]["questions"] == 2


@pytest.mark.parametrize(
    ("answer", "score"),
    [("Napoleon", 1.0), ("It is a Napoleon!", 0.5), ("the cat", 0.0), ("", 0.0)],
)
def test_articles_and_marks_do_not_count(answer: str, score: float) -> None:
    assert token_f1(answer, "the napoleon") == pytest.approx(score)
