"""The guard: questions about what nobody has said, or another speaker has."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamingllm.memory import Guard, Memory, Support

TOLD = [
    ("Ada", "I bought a red kayak in Lisbon."),
    ("Ben", "My parrot learned to whistle the anthem."),
    ("Ada", "The kayak leaks near the rudder."),
    ("Ben", "I am going to bake bread on Sunday."),
]


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Memory]:
    with Memory(tmp_path / "memory.db") as memory:
        for speaker, text in TOLD:
            memory.append("told", "user", text, speaker=speaker, time=0.0)
        yield memory


@pytest.mark.parametrize(
    ("question", "is_marked"),
    [
        ("Where was the red kayak that Ada bought?", False),
        ("What did the parrot of Ben learn to whistle?", False),
        ("Can you remind me where the kayak leaks?", False),  # nobody has said "remind"
        ("Where was the red kayak that Ben bought?", True),  # Ada has said so
        ("Who taught Ada's parrot to whistle?", True),
        ("What is the crocodile called?", True),
        ("Did Ada tell Ben about the bread?", False),  # both are named
        ("What is it?", False),  # nothing that could be looked for
    ],
)
def test_questions_that_nothing_supports_are_marked(
    memory: Memory, question: str, is_marked: bool
) -> None:
    assert Guard().is_not_found(memory.support("told", question)) == is_marked


def test_shares_weigh_words_by_rarity(memory: Memory) -> None:
    def weight(num_having: int) -> float:
        return math.log(1 + (len(TOLD) - num_having + 0.5) / (num_having + 0.5))

    # Ada's best piece has "red" and "kayak"; no piece of Ben's has one; nobody has said "ocean".
    support = memory.support("told", "Did Ben see the red kayak on the ocean?")
    total = weight(1) + weight(2) + 2 * weight(0)
    assert support.unknown_words == ("see", "ocean")
    assert support.unknown_share == pytest.approx(2 * weight(0) / total)
    assert support.named_share == 0.0
    assert support.others_share == pytest.approx((weight(1) + weight(2)) / total)
    assert support.misplaced_share == support.others_share


def test_sessions_that_are_not_there_support_nothing(memory: Memory) -> None:
    support = memory.support("elsewhere", "Where is the kayak?")
    assert support == Support(("kayak",), 1.0)
    assert Guard().is_not_found(support)
    assert not Guard().is_not_found(memory.support("elsewhere", "What is it?"))


def test_what_is_forgotten_supports_nothing(memory: Memory) -> None:
    gone = [piece.message_id for piece in memory.messages("told") if "kayak" in piece.text]
    memory.forget("told", gone)
    assert Guard().is_not_found(memory.support("told", "Where is the red kayak?"))
