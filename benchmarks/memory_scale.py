"""Grow one session of a memory, and time appends and recalls on the way.

Turns are made of pseudo-words whose frequencies follow Zipf's law, without the words that a memory
leaves out anyway. A query repeats three words of one old turn and adds three of any.

Run: `python -m benchmarks.memory_scale --json benchmarks/results/memory-scale.json`
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
import typer

from benchmarks.progress import shown
from streamingllm.cli.output import write_json
from streamingllm.cli.run_record import run_record
from streamingllm.memory import Memory

BATCH = 1000
NUM_WORDS = 100_000
FIRST_RANK = 30  # more frequent words are stop words
WORDS_OF_TURN = 12

Item = TypeVar("Item")


class Turns:
    """Make turns and queries; equal seeds make equal ones."""

    def __init__(self, seed: int) -> None:
        self._generator = np.random.default_rng(seed)
        weights = 1 / np.arange(FIRST_RANK, FIRST_RANK + NUM_WORDS)
        self._bounds = np.cumsum(weights / weights.sum())
        self.old: dict[int, list[str]] = {}

    def words(self, count: int) -> list[str]:
        drawn = np.searchsorted(self._bounds, self._generator.random(count))
        return [f"q{int(rank):x}z" for rank in drawn]

    def turn(self, number: int) -> str:
        words = self.words(WORDS_OF_TURN)
        if number % 97 == 0:
            self.old[number] = words
        return " ".join(words)

    def query(self) -> tuple[int, str]:
        numbers = list(self.old)
        number = numbers[int(self._generator.integers(len(numbers)))]
        told = self._generator.choice(self.old[number], 3, replace=False).tolist()
        return number, " ".join(["what about", *told, *self.words(3)])


def milliseconds(action: Callable[[Item], object], items: Sequence[Item]) -> dict[str, float]:
    """Return medians and 95th percentiles of durations, and of the time of this thread on a core.

    On a machine that others share only the latter can be compared.
    """
    durations = []
    for item in items:
        start, core = time.perf_counter(), time.thread_time()
        action(item)
        durations.append((time.perf_counter() - start, time.thread_time() - core))
    named = dict(
        zip(("milliseconds", "core_milliseconds"), zip(*durations, strict=True), strict=True)
    )
    return {
        f"{kind}_{name}": round(1000 * value, 3)
        for name, seconds in named.items()
        for kind, value in (
            ("median", statistics.median(seconds)),
            ("p95", sorted(seconds)[int(0.95 * len(seconds))]),
        )
    }


def measure(memory: Memory, turns: Turns, path: Path, num_turns: int, num_queries: int) -> Any:
    """Measure recalls, durable appends and bytes at one length of the session."""
    visible, hits = range(num_turns - 40, 1 << 40), 0

    def recall(asked: tuple[int, str]) -> None:
        nonlocal hits
        found = memory.search("session", asked[1], 500, exclude_positions=visible)
        hits += any(piece.position == asked[0] for piece in found)

    recalls = milliseconds(recall, [turns.query() for _ in range(num_queries)])
    appends = milliseconds(
        lambda text: memory.append("other", "user", text),
        [" ".join(turns.words(WORDS_OF_TURN)) for _ in range(num_queries)],
    )
    return {
        "turns": num_turns,
        "recall": recalls,
        "share_of_turns_found": round(hits / num_queries, 3),
        "durable_append": appends,
        "bytes_per_turn": round(sum(f.stat().st_size for f in path.parent.iterdir()) / num_turns),
    }


def main(
    turns: Annotated[int, typer.Option(help="Turns of the session at the end.")] = 1_000_000,
    queries: Annotated[int, typer.Option(help="Recalls at each length.")] = 200,
    seed: Annotated[int, typer.Option(help="Of turns and queries.")] = 0,
    folder: Annotated[str, typer.Option(help="Where the database goes meanwhile.")] = "",
    json: Annotated[str, typer.Option(help="Where results go; `-` prints them.")] = "-",
) -> None:
    """Append turns to a session; measure at 1,000, 10,000, ... turns and at the end."""
    made, rows, batches = Turns(seed), [], []
    with tempfile.TemporaryDirectory(dir=folder or None) as temporary:
        path = Path(temporary) / "memory.db"
        with Memory(path) as memory:
            for first in shown(range(0, turns, BATCH), "turns"):
                texts = [made.turn(number) for number in range(first, first + BATCH)]
                start = time.thread_time()
                with memory.transaction():
                    for number, text in enumerate(texts, start=first):
                        memory.append("session", "user", text, position=number, time=number * 60.0)
                batches.append(1000 * (time.thread_time() - start) / BATCH)
                done = first + BATCH
                if done == turns or (str(done).strip("0") == "1"):
                    row = measure(memory, made, path, done, queries)
                    row["append_core_milliseconds"] = round(statistics.median(batches[-100:]), 3)
                    rows.append(row)
                    typer.echo(row, err=True)
    write_json(json, {"seed": seed, "queries": queries, "lengths": rows, **run_record()})


if __name__ == "__main__":
    typer.run(main)
