"""Finished turns, samples over time, and counts of a simulation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.scale.draws import Floats, Integers

TURN_FIELDS = (
    *("session", "turn", "replica", "arrived", "started", "finished", "running", "prompt_micro"),
    "restored",
)


@dataclass
class Counts:
    """Count what happened."""

    arrivals: int = 0
    finished: int = 0
    cut: int = 0
    restores: int = 0
    takeovers: int = 0
    stale_states: int = 0
    wasted_micro_tokens: int = 0
    dead_ends: int = 0


@dataclass
class Log:
    """Collect the turns and samples of a simulation."""

    counts: Counts = field(default_factory=Counts)
    turns: dict[str, list[Integers]] = field(
        default_factory=lambda: {name: [] for name in TURN_FIELDS}
    )
    samples: list[dict[str, float]] = field(default_factory=list)

    def add_turns(self, **columns: Any) -> None:
        """Add finished turns, an array for each of TURN_FIELDS."""
        for name in TURN_FIELDS:
            self.turns[name].append(columns[name])

    def columns(self) -> dict[str, Integers]:
        """Return all turns, in the order of their ends."""
        none = np.empty(0, dtype=np.int64)
        return {name: np.concatenate([none, *parts]) for name, parts in self.turns.items()}


def first_token_seconds(
    columns: dict[str, Integers], gained: Integers, tick_seconds: float
) -> Floats:
    """Return the time from a turn's arrival to its first token: [N].

    Args:
        columns: of turns.
        gained: millionths of a token of a stream in a tick, by the number of streams.
        tick_seconds: of a tick.
    """
    waited = columns["started"] - columns["arrived"]
    reading = (columns["prompt_micro"] + 1_000_000) / gained[columns["running"]]
    return (waited + reading) * tick_seconds


def held_states(
    columns: dict[str, Integers], tick: int, idle_ticks: int, replicas: int
) -> Integers:
    """Return how many states each replica holds at a tick, stale ones included: [replicas].

    Replicas that were lost or replaced are not looked after: use it on runs without losses.
    """
    recent = (columns["finished"] <= tick) & (columns["finished"] > tick - idle_ticks)
    pairs = columns["session"][recent] * replicas + columns["replica"][recent]
    return np.bincount(np.unique(pairs) % replicas, minlength=replicas)
