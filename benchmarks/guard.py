"""Measure how often questions without an answer are marked, and answerable ones falsely.

LoCoMo: bounds are picked on the first five conversations and reported on the other five, with
intervals by conversation. LongMemEval: abstention questions against answerable ones, with the
bounds of the package. No model answers.

Run: `python -m benchmarks.guard --json benchmarks/results/guard.json`
"""

from __future__ import annotations

import itertools
import json as json_files
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.locomo_data import CATEGORIES, FILE, LocomoConversation, read_locomo
from benchmarks.progress import shown
from streamingllm.cli.output import write_json
from streamingllm.cli.run_record import run_record
from streamingllm.memory import Guard, Memory, Support
from streamingllm.sessions.sqlite_database import SqliteDatabase

ADVERSARIAL = 5
NUM_PICKING = 5
RESAMPLES = 2000
MAX_FALSE_SHARE = 0.15  # of answerable questions, while bounds are picked
GRID = [
    Guard(unknown, misplaced)
    for unknown, misplaced in itertools.product(
        [0.3, 0.4, 0.5, 0.6, 0.7, 1.0], [0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 1.0]
    )
]


@dataclass(frozen=True)
class Asked:
    """A question: its category, whether it has an answer, and its support."""

    category: str
    is_answerable: bool
    support: Support


def locomo_questions(told: LocomoConversation) -> list[Asked]:
    """Return the questions about a conversation."""
    with Memory(_new_database()) as memory:
        with memory.transaction():
            for turn in told.turns:
                memory.append("told", "user", turn.text, speaker=turn.speaker, time=turn.seconds)
        return [
            Asked(
                CATEGORIES[question.category],
                question.category != ADVERSARIAL,
                memory.support("told", question.text),
            )
            for question in told.questions
        ]


def longmemeval_questions(file: Path) -> list[Asked]:
    """Return the questions of a sample of LongMemEval, each with a memory of its own history."""
    found = []
    for record in json_files.loads(file.read_text())["data"]:
        with Memory(_new_database()) as memory:
            with memory.transaction():
                for turn in record["conversation"]:
                    said_at = datetime.strptime(turn["date"], "%Y/%m/%d (%a) %H:%M")
                    text, role = turn["content"], turn["role"]
                    memory.append("told", role, text, time=said_at.replace(tzinfo=UTC))
            for question in record["questions"]:
                support = memory.support("told", question["question"])
                is_answerable = not question.get("is_abstention", False)
                found.append(Asked(record["question_type"], is_answerable, support))
    return found


def marked_share(asked: Sequence[Asked], guard: Guard, *, is_answerable: bool) -> float:
    """Return the share of questions with or without an answer that a guard marks."""
    some = [guard.is_not_found(a.support) for a in asked if a.is_answerable == is_answerable]
    return sum(some) / max(1, len(some))


def pick(asked: Sequence[Asked]) -> Guard:
    """Return the bounds that mark most adversarial questions, at few false marks."""
    allowed = [
        guard for guard in GRID if marked_share(asked, guard, is_answerable=True) <= MAX_FALSE_SHARE
    ]
    return max(allowed, key=lambda guard: marked_share(asked, guard, is_answerable=False))


def report(conversations: Sequence[Sequence[Asked]], guard: Guard, seed: int) -> dict[str, Any]:
    """Return marked shares with 95 % intervals; conversations are drawn with replacement."""
    generator = np.random.default_rng(seed)
    drawn = generator.integers(len(conversations), size=(RESAMPLES, len(conversations)))
    every = [asked for told in conversations for asked in told]
    result: dict[str, Any] = {}
    for name, is_answerable in (("adversarial", False), ("answerable", True)):
        marks = [
            np.array(
                [guard.is_not_found(a.support) for a in told if a.is_answerable == is_answerable]
            )
            for told in conversations
        ]
        means = [np.concatenate([marks[number] for number in some]).mean() for some in drawn]
        low, high = np.percentile(means, [2.5, 97.5])
        result[name] = {
            "questions": sum(map(len, marks)),
            "marked": round(float(np.concatenate(marks).mean()), 4),
            "interval": [round(float(low), 4), round(float(high), 4)],
        }
    for category in (name for number, name in CATEGORIES.items() if number != ADVERSARIAL):
        some = [a for a in every if a.category == category]
        marked = sum(guard.is_not_found(a.support) for a in some)
        result[category] = {"questions": len(some), "marked": round(marked / len(some), 4)}
    return result


def main(
    data: Annotated[Path, typer.Option(help="Folder of the data sets.")] = FILE.parent,
    seed: Annotated[int, typer.Option(help="Of the intervals.")] = 0,
    json: Annotated[str, typer.Option(help="Where results go; `-` prints them.")] = "-",
) -> None:
    """Pick the guard's bounds on five conversations and report on five others."""
    if not (data / FILE.name).is_file():
        raise typer.BadParameter(f"data={str(data)!r} has no {FILE.name}; name another folder")
    told = read_locomo(data / FILE.name)
    conversations = [locomo_questions(one) for one in shown(told, "conversations", len(told))]
    picking, others = conversations[:NUM_PICKING], conversations[NUM_PICKING:]
    picked = pick([asked for one in picking for asked in one])
    words_alone = Guard(max_unknown_share=0.0, max_misplaced_share=1.0)
    results: dict[str, Any] = {
        "picked": asdict(picked),
        "package": asdict(Guard()),
        "locomo, picked bounds": report(others, picked, seed),
        "locomo, the package's bounds": report(others, Guard(), seed),
        "locomo, any unknown word": report(others, words_alone, seed),
    }
    for name in ("longmemeval-abstain-sample", "longmemeval-oracle-sample"):
        asked = longmemeval_questions(data / f"{name}.json")
        marks = [Guard().is_not_found(a.support) for a in asked]
        unknown = [bool(a.support.unknown_words) for a in asked]
        results[name] = {
            "questions": len(asked),
            "marked": sum(marks),
            "with an unknown word": sum(unknown),
        }
    write_json(json, {**results, **run_record(seed)})


def _new_database() -> SqliteDatabase:
    return SqliteDatabase(Path(":memory:"), "create", "delete")


if __name__ == "__main__":
    typer.run(main)
