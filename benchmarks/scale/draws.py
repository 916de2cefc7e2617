"""Random numbers by address: a draw depends on the seed, its purpose, a session and a turn alone.

Two placements of the same crowd therefore meet the same turns, whatever the order of events.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


class Purpose(IntEnum):
    """Name what a number is drawn for."""

    GAP = 1
    STAYS = 2
    THINK = 3
    THINK_ANGLE = 4
    ANSWER = 5
    WAVE = 6
    IN_WAVE = 7


def _mixed(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the finaliser of SplitMix64.

    Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
    """
    bits = (bits ^ (bits >> np.uint64(30))) * _FIRST
    bits = (bits ^ (bits >> np.uint64(27))) * _SECOND
    return bits ^ (bits >> np.uint64(31))


def uniform(seed: int, purpose: Purpose, sessions: Integers, turns: Integers) -> Floats:
    """Draw a number above 0 and below 1 for each session and turn.

    Args:
        seed: of the whole simulation.
        purpose: of the numbers.
        sessions: [N].
        turns: [N], how often each session has drawn before.
    """
    with np.errstate(over="ignore"):
        start = np.uint64(seed) * _GOLDEN + np.uint64(purpose)
        bits = _mixed(_mixed(np.atleast_1d(start)) + sessions.astype(np.uint64) * _GOLDEN)
        bits = _mixed(bits + turns.astype(np.uint64) * _GOLDEN)
    return ((bits >> np.uint64(12)).astype(np.float64) + 0.5) / float(1 << 52)


def exponential(numbers: Floats, mean: float) -> Floats:
    """Turn uniform numbers into exponential ones."""
    return -mean * np.log(numbers)


def normal(numbers: Floats, angles: Floats) -> Floats:
    """Turn two uniform numbers into a standard normal one, by Box and Muller."""
    return np.sqrt(-2.0 * np.log(numbers)) * np.cos(2.0 * np.pi * angles)
