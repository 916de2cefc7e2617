"""Replicas and the store that they share, in numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from benchmarks.scale.draws import Integers

MICRO = 1_000_000


@dataclass(frozen=True)
class Replica:
    """Describe one replica.

    Args:
        slots: streams that decode at once.
        step_seconds: of a decode step, by the number of streams: at least 1 and `slots`.
        prefill_tokens_per_second: of a prompt alone.
        state_bytes: of a session.
        idle_seconds: for which an idle session's state stays in the replica.
        link_bytes_per_second: at which it reads states.
        restore_seconds: of a restore, its bytes apart.
        detect_seconds: between a replica's death and the first retry.
    """

    slots: int
    step_seconds: dict[int, float]
    prefill_tokens_per_second: float
    state_bytes: int
    idle_seconds: float = 600.0
    link_bytes_per_second: float = 1.25e9
    restore_seconds: float = 0.0
    detect_seconds: float = 2.0

    def tokens_per_tick(self, tick_seconds: float) -> Integers:
        """Return the millionths of a token that each stream gains in a tick: [slots + 1].

        Steps between two measured numbers of streams are interpolated.
        """
        streams, seconds = zip(*sorted(self.step_seconds.items()), strict=True)
        steps = np.interp(np.arange(1, self.slots + 1), streams, seconds)
        gained = np.concatenate([[0.0], MICRO * tick_seconds / steps])
        return gained.round().astype(np.int64)

    @property
    def prompt_weight(self) -> float:
        """Tokens of a full batch that cost the time of one token of a prompt."""
        return self.slots / self.step_seconds[self.slots] / self.prefill_tokens_per_second

    @property
    def tokens_per_second(self) -> float:
        """Tokens of a full batch."""
        return self.slots / self.step_seconds[self.slots]


@dataclass(frozen=True)
class Store:
    """Describe the store of all states and turns.

    Args:
        read_bytes_per_second: of all replicas together; infinite without a bound.
        write_bytes_per_second: of all replicas together.
        commits_per_second: of all replicas together.
        checkpoint_bytes: that each turn writes.
        restore: `snapshot` reads the state; `replay` computes it from the last tokens.
        replay_tokens: of a replay.
    """

    read_bytes_per_second: float = float("inf")
    write_bytes_per_second: float = float("inf")
    commits_per_second: float = float("inf")
    checkpoint_bytes: int = 0
    restore: Literal["snapshot", "replay"] = "snapshot"
    replay_tokens: int = 1024


def micros(amount: float, per_second: float) -> int:
    """Return the microseconds that an amount takes at a rate."""
    return round(MICRO * amount / per_second)
