"""Sessions that come, talk for some turns, and go."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from benchmarks.scale.draws import Floats, Integers, Purpose, exponential, normal, uniform

DAY_SECONDS = 86_400


@dataclass(frozen=True)
class Wave:
    """Describe a visit that many sessions make in the same minutes.

    Args:
        share: of all sessions.
        begin_seconds: of the first visit.
        length_seconds: until the last one begins.
    """

    share: float
    begin_seconds: float
    length_seconds: float


@dataclass(frozen=True)
class Crowd:
    """Describe who talks in the busiest hour.

    Args:
        sessions: all of them.
        turns_a_day: of a session.
        peak_factor: rate of the busiest hour over the average.
        turns_of_a_visit: mean of a geometric number.
        think_seconds: median between an answer and the next turn.
        think_sigma: of its logarithm.
        prompt_tokens: of a turn.
        answer_tokens: mean of an exponential number.
        wave: of visits, on top of the others.
    """

    sessions: int
    turns_a_day: float = 7.0
    peak_factor: float = 3.0
    turns_of_a_visit: float = 5.0
    think_seconds: float = 20.0
    think_sigma: float = 1.2
    prompt_tokens: int = 60
    answer_tokens: float = 200.0
    wave: Wave | None = None

    @property
    def gap_seconds(self) -> float:
        """Mean time from a visit's end to the next visit."""
        return self.turns_of_a_visit * DAY_SECONDS / (self.turns_a_day * self.peak_factor)

    @property
    def turns_per_second(self) -> float:
        """Turns of all sessions in the busiest hour, visits taken as short."""
        return self.sessions * self.turns_a_day * self.peak_factor / DAY_SECONDS

    @property
    def mean_think_seconds(self) -> float:
        """Mean time between an answer and the next turn of a visit."""
        return self.think_seconds * math.exp(self.think_sigma**2 / 2)

    def first_seconds(self, seed: int) -> Floats:
        """Draw the start of each session's first visit: [sessions]."""
        everyone = np.arange(self.sessions)
        never = np.zeros_like(everyone)
        found = exponential(uniform(seed, Purpose.GAP, everyone, never), self.gap_seconds)
        if self.wave is not None:
            chosen = uniform(seed, Purpose.IN_WAVE, everyone, never) < self.wave.share
            place = uniform(seed, Purpose.WAVE, everyone, never) * self.wave.length_seconds
            found = np.where(chosen, self.wave.begin_seconds + place, found)
        return found

    def pause_seconds(self, seed: int, sessions: Integers, turns: Integers) -> Floats:
        """Draw the time from the end of a turn to the session's next turn: [N].

        Args:
            seed: of the simulation.
            sessions: [N], whose turn has ended.
            turns: [N], number of turns that each has ended, this one included.
        """
        stays = uniform(seed, Purpose.STAYS, sessions, turns) >= 1 / self.turns_of_a_visit
        size = uniform(seed, Purpose.THINK, sessions, turns)
        angle = uniform(seed, Purpose.THINK_ANGLE, sessions, turns)
        think = self.think_seconds * np.exp(self.think_sigma * normal(size, angle))
        gap = exponential(uniform(seed, Purpose.GAP, sessions, turns), self.gap_seconds)
        return np.maximum(1.0, np.where(stays, think, gap))

    def answers(self, seed: int, sessions: Integers, turns: Integers) -> Integers:
        """Draw the tokens of an answer, 1 to 20 times the mean: [N]."""
        drawn = exponential(uniform(seed, Purpose.ANSWER, sessions, turns), self.answer_tokens)
        return np.clip(np.ceil(drawn), 1, 20 * self.answer_tokens).astype(np.int64)
