"""Read LoCoMo's conversations, which are licensed for measuring only and are no part of this tree.

Source: Maharana et al., Evaluating Very Long-Term Conversational Memory of LLM Agents, ACL 2024.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

FILE = Path(__file__).parents[2] / "shared" / "data" / "locomo10.json"
CATEGORIES = {1: "multi-hop", 2: "temporal", 3: "open-domain", 4: "single-hop", 5: "adversarial"}


@dataclass(frozen=True)
class Turn:
    """One turn: its id, who said what, and when."""

    id: str
    speaker: str
    text: str
    seconds: float


@dataclass(frozen=True)
class Question:
    """A question, its category, the ids of the turns that answer it, and the answer if any."""

    text: str
    category: int
    evidence: frozenset[str]
    answer: str


@dataclass(frozen=True)
class LocomoConversation:
    """A conversation of many sessions, and questions about it."""

    turns: tuple[Turn, ...]
    questions: tuple[Question, ...]


def read_locomo(file: Path = FILE) -> list[LocomoConversation]:
    """Return the ten conversations; a picture is the caption that comes with it."""
    return [_conversation(record) for record in json.loads(file.read_text())]


def _conversation(record: dict[str, Any]) -> LocomoConversation:
    said, turns = record["conversation"], []
    for number in range(1, len(said)):
        for turn in said.get(f"session_{number}", ()):
            at = datetime.strptime(said[f"session_{number}_date_time"], "%I:%M %p on %d %B, %Y")
            text = turn["text"]
            if "blip_caption" in turn:
                text += f" [shares {turn['blip_caption']}]"
            seconds = at.replace(tzinfo=UTC).timestamp()
            turns.append(Turn(turn["dia_id"], turn["speaker"], text, seconds))
    known = {turn.id for turn in turns}
    questions = []
    for asked in record["qa"]:
        named = re.findall(r"D\d+:\d+", " ".join(asked.get("evidence", ())))
        evidence = frozenset(named) & known
        if evidence:
            answer = str(asked.get("answer", ""))
            questions.append(Question(asked["question"], asked["category"], evidence, answer))
    return LocomoConversation(tuple(turns), tuple(questions))
