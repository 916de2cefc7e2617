"""Measure whether a memory finds the turns that answer LoCoMo's questions.

Settings are picked on the first five conversations and reported on the other five, with intervals
by conversation. No model answers; the measure is the evidence.

Run: `python -m benchmarks.locomo --json benchmarks/results/locomo.json [--encoder minilm]`
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer

from benchmarks.locomo_data import CATEGORIES, FILE, LocomoConversation, Question, read_locomo
from benchmarks.progress import shown
from streamingllm import load_model
from streamingllm.cli.output import write_json
from streamingllm.cli.run_record import run_record
from streamingllm.memory import Memory, MemorySettings, Recalled
from streamingllm.memory.encoder import Encoder, load_encoder
from streamingllm.memory.selection import select
from streamingllm.sessions.sqlite_database import SqliteDatabase

BUDGETS = (500, 1000, 2000)
TURNS = (9, 21)
NUM_PICKING = 5
RESAMPLES = 2000
ADVERSARIAL = 5
GRID = [
    MemorySettings(window_pieces=window, stride_pieces=stride, b=b, own_weight=own)
    for (window, stride), b, own in itertools.product([(3, 1), (4, 2)], [0.5, 0.75], [0.15, 0.5])
]
ENCODER_WEIGHTS = (6.0, 12.0, 18.0)

Floats = npt.NDArray[np.float64]


class Measured:
    """A conversation in a memory, with the questions that have an answer."""

    def __init__(self, told: LocomoConversation, count: Callable[[str], int]) -> None:
        self.database = SqliteDatabase(Path(":memory:"), "create", "delete")
        self.told, self._count = told, count
        self.questions = [q for q in told.questions if q.category != ADVERSARIAL]

    def fill(self, encoder: Encoder | None) -> None:
        memory = Memory(self.database, encoder=encoder)
        with memory.transaction():
            for turn in self.told.turns:
                memory.append(
                    "told",
                    "user",
                    turn.text,
                    speaker=turn.speaker,
                    time=turn.seconds,
                    message_id=turn.id,
                )

    def scores(self, settings: MemorySettings, encoder: Encoder | None) -> Floats:
        """Return, by question, whether evidence was found and how much: [questions, 2 x cuts]."""
        memory = Memory(self.database, settings, encoder=encoder)
        return np.array([self._scored(memory, question) for question in self.questions])

    def unknown_share(self, category: int) -> float:
        """Return the share of a category's questions with a word that nobody has said."""
        memory = Memory(self.database)
        asked = [question for question in self.told.questions if question.category == category]
        flagged = [bool(memory.unknown_words("told", question.text)) for question in asked]
        return sum(flagged) / max(1, len(flagged))

    def _scored(self, memory: Memory, question: Question) -> list[float]:
        ranked = memory.search("told", question.text, 20_000)
        cuts = [select(ranked, budget, self._count) for budget in BUDGETS]
        cuts += [_first_messages(ranked, number) for number in TURNS]
        row: list[float] = []
        for cut in cuts:
            num_found = len(question.evidence & {piece.message_id for piece in cut})
            row += [float(num_found > 0), num_found / len(question.evidence)]
        return row


def _first_messages(ranked: Sequence[Recalled], number: int) -> list[Recalled]:
    kept = list(dict.fromkeys(piece.message_id for piece in ranked))[:number]
    return [piece for piece in ranked if piece.message_id in kept]


class Remembering:
    """Keep the vectors of an encoder, because all settings encode the same texts."""

    def __init__(self, encoder: Encoder) -> None:
        self.name = encoder.name
        self._encode = cache(lambda text: encoder.encode([text])[0])

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        return np.stack([self._encode(text) for text in texts])


def report(by_conversation: Sequence[Floats], seed: int) -> dict[str, Any]:
    """Return shares with 95 % intervals, for which conversations are drawn with replacement."""
    generator = np.random.default_rng(seed)
    drawn = generator.integers(len(by_conversation), size=(RESAMPLES, len(by_conversation)))
    means = [
        np.concatenate([by_conversation[number] for number in some]).mean(axis=0) for some in drawn
    ]
    low, high = np.percentile(means, [2.5, 97.5], axis=0)
    mean = np.concatenate(by_conversation).mean(axis=0)
    names = [f"{budget} tokens" for budget in BUDGETS] + [f"{number} turns" for number in TURNS]
    return {
        name: {
            kind: {
                "share": round(float(mean[at]), 4),
                "interval": [round(float(low[at]), 4), round(float(high[at]), 4)],
            }
            for at, kind in ((2 * number, "any"), (2 * number + 1, "mean"))
        }
        for number, name in enumerate(names)
    }


def pick(
    measured: Sequence[Measured], grid: Sequence[MemorySettings], encoder: Encoder | None
) -> MemorySettings:
    """Return the settings that find most evidence, averaged over all cuts."""

    def found(settings: MemorySettings) -> float:
        return float(np.concatenate([m.scores(settings, encoder) for m in measured]).mean())

    return max(shown(grid, "settings", len(grid)), key=found)


def main(
    data: Annotated[Path, typer.Option(help="LoCoMo's locomo10.json.")] = FILE,
    encoder: Annotated[str, typer.Option(help="Of vectors, such as minilm; none without.")] = "",
    seed: Annotated[int, typer.Option(help="Of the intervals.")] = 0,
    json: Annotated[str, typer.Option(help="Where results go; `-` prints them.")] = "-",
) -> None:
    """Pick settings on five conversations and report on five others."""
    if not data.is_file():
        raise typer.BadParameter(f"data={str(data)!r} is no file; name LoCoMo's locomo10.json")
    lm = load_model()
    count = cache(lambda text: len(lm.encode(text, add_special_tokens=False)))
    encodes = Remembering(load_encoder(encoder)) if encoder else None
    measured = [Measured(told, count) for told in read_locomo(data)]
    for one in shown(measured, "conversations", len(measured)):
        one.fill(encodes)
    picking, held_out = measured[:NUM_PICKING], measured[NUM_PICKING:]
    picked = pick(picking, GRID, None)
    results: dict[str, Any] = {}
    for name, settings in {"default": MemorySettings(), "picked": picked}.items():
        scores = [one.scores(settings, None) for one in held_out]
        results[f"bm25, {name}"] = {"settings": asdict(settings), **report(scores, seed)}
    if encodes is not None:
        grid = [replace(picked, encoder_weight=weight) for weight in ENCODER_WEIGHTS]
        fused = pick(picking, grid, encodes)
        for name, settings in {"default": MemorySettings(), "picked": fused}.items():
            scores = [one.scores(settings, encodes) for one in held_out]
            results[f"{encoder}, {name}"] = {"settings": asdict(settings), **report(scores, seed)}
    flagged = {
        name: float(np.mean([one.unknown_share(number) for one in measured]).round(4))
        for number, name in CATEGORIES.items()
    }
    num_questions = sum(len(one.questions) for one in held_out)
    write_json(
        json,
        {
            "conversations": {"picked_on": NUM_PICKING, "reported_on": len(held_out)},
            "questions_reported": num_questions,
            "found": results,
            "share_of_questions_with_an_unknown_word": flagged,
            **run_record(seed),
        },
    )


if __name__ == "__main__":
    typer.run(main)
