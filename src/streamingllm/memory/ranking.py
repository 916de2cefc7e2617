"""Score windows of pieces by BM25, without a database."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from streamingllm.memory.settings import MemorySettings

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Totals:
    """Count the pieces of a session.

    Args:
        num_pieces: that are there.
        num_words: of all of them, stop words left out.
        num_numbers: that pieces have had; those of forgotten ones are not used again.
    """

    num_pieces: int
    num_words: int
    num_numbers: int


@dataclass(frozen=True)
class Wanted:
    """A word of a query.

    Args:
        number: of the word.
        weight: the rarer the word, the more.
    """

    number: int
    weight: float


@dataclass(frozen=True)
class Pieces:
    """Hold the words of pieces.

    Args:
        numbers: of the pieces, in order.
        positions: stream positions of their messages.
        lengths: words of each.
        words: numbers of the words of all pieces, one piece after the other.
    """

    numbers: Integers
    positions: Sequence[int]
    lengths: Integers
    words: npt.NDArray[np.uint32]


def rarity(num_having: int, num_pieces: int) -> float:
    """Return the weight of a word that `num_having` of `num_pieces` have."""
    return math.log1p((num_pieces - num_having + 0.5) / (num_having + 0.5))


class WindowRanking:
    """Score windows and pieces by the words of a query.

    Window k holds the pieces from k * stride on. There are windows up to the first that holds the
    last piece.

    Args:
        settings: sizes and the constants of BM25.
        totals: of the session.
        wanted: words of the query.
    """

    def __init__(self, settings: MemorySettings, totals: Totals, wanted: Sequence[Wanted]) -> None:
        self._size, self._stride = settings.window_pieces, settings.stride_pieces
        self._k1, self._b = settings.k1, settings.b
        self._own_weight = settings.own_weight
        self._wanted = wanted
        self._mean_words = totals.num_words / max(1, totals.num_pieces)
        self._last = max(0, -(-(totals.num_numbers - self._size) // self._stride))

    def candidates(self, having: Sequence[Integers]) -> Integers:
        """Return windows, those that score best without regard to their length first.

        Args:
            having: of each wanted word, numbers of pieces that have it.

        Returns:
            numbers of windows.
        """
        found = [self._windows_with(numbers) for numbers in having]
        if not found:
            return np.empty(0, dtype=np.int64)
        every = np.concatenate([windows for windows, _ in found])
        scores = np.concatenate(
            [
                word.weight * _saturated(counts, self._k1, 1.0)
                for word, (_, counts) in zip(self._wanted, found, strict=True)
            ]
        )
        windows, place = np.unique(every, return_inverse=True)
        total = np.bincount(place, weights=scores, minlength=len(windows))
        return windows[np.lexsort((windows, -total))]

    def pieces_of(self, windows: Integers) -> Integers:
        """Return the numbers of all pieces of some windows, in order."""
        return np.unique(self._numbers(windows))

    def scores(self, windows: Integers, pieces: Pieces) -> Floats:
        """Return the score of each piece of some windows.

        A piece scores what the best of these windows does, and a share of its own.

        Args:
            windows: their numbers.
            pieces: those of them that are there.

        Returns:
            scores, one for each piece.
        """
        numbers, lengths = pieces.numbers, pieces.lengths.astype(np.float64)
        if not len(numbers):
            return np.empty(0)
        has = self._presence(pieces)
        asked = self._numbers(windows)
        place = np.minimum(np.searchsorted(numbers, asked), len(numbers) - 1)
        is_there = numbers[place] == asked
        counts = (has[place] * is_there[..., None]).sum(axis=1)
        total = self._bm25(counts, (lengths[place] * is_there).sum(axis=1) / self._size)
        best = np.zeros(len(numbers))
        every = np.broadcast_to(total[:, None], asked.shape)
        np.maximum.at(best, place[is_there], every[is_there])
        return best + self._own_weight * self._bm25(has, lengths)

    def _numbers(self, windows: Integers) -> Integers:
        return windows[:, None] * self._stride + np.arange(self._size)

    def _presence(self, pieces: Pieces) -> Floats:
        """Return 1 where a piece has a wanted word, [pieces, wanted words]."""
        has = np.zeros((len(pieces.numbers), len(self._wanted)))
        holder = np.repeat(np.arange(len(pieces.numbers)), pieces.lengths)
        for column, word in enumerate(self._wanted):
            has[holder[pieces.words == word.number], column] = 1.0
        return has

    def _windows_with(self, numbers: Integers) -> tuple[Integers, Integers]:
        """Return the windows of pieces, and how many of these pieces each has."""
        latest = numbers // self._stride
        around = []
        for back in range(-(-self._size // self._stride)):
            windows = latest - back
            holds = (
                (windows >= 0)
                & (windows <= self._last)
                & (numbers < windows * self._stride + self._size)
            )
            around.append(windows[holds])
        return np.unique(np.concatenate(around), return_counts=True)

    def _bm25(self, counts: Floats, num_words: Floats) -> Floats:
        """Return the score of rows of counts, [rows, wanted words], and their lengths."""
        norm = 1 - self._b + self._b * num_words / max(self._mean_words, 1e-9)
        weights = np.array([word.weight for word in self._wanted])
        scores: Floats = _saturated(counts, self._k1, norm[:, None]) @ weights
        return scores


def _saturated(counts: npt.NDArray[Any], k1: float, norm: Floats | float) -> Floats:
    """Return how much words count that occur again and again."""
    saturated: Floats = counts * (k1 + 1) / np.maximum(counts + k1 * norm, 1e-9)
    return saturated
