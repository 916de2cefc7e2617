"""Tokens of prompts that a step prefills while other streams decode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

SMALLEST_CHUNK = 16
MIXED_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)

_NEW_SHARE = 0.25  # of a fresh measurement in the running mean
_MARGIN = 0.8  # single steps scatter around the mean
_FADE = 0.995
_TRUSTED_STEPS = 32


class PrefillWork(NamedTuple):
    """Work of a step on prompts: a chunk in a pass of its own, or tokens in a mixed step."""

    how: Literal["chunk", "mixed"]
    num_tokens: int


class BucketSizes:
    """Find the largest of some sizes that fits into a time, by measuring how long each takes.

    A larger size is tried if the measurements of the two before it suggest that it fits, or if one
    larger still does.

    Args:
        sizes: ascending, each about twice the one before.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = sizes
        self._seconds: dict[int, float] = {}
        self._begun: set[int] = set()

    def largest(self, allowed_seconds: float, most: int) -> tuple[int, float]:
        """Return the largest size that fits, 0 if none does, and the seconds expected of it.

        Args:
            allowed_seconds: what it may take.
            most: the greatest size that is wanted; the smallest that does all of that is enough.
        """
        best, best_seconds, seconds, growth = 0, 0.0, 0.0, 0.0
        for size in self.sizes:
            is_known = size in self._seconds
            larger = (x for known, x in self._seconds.items() if known > size)
            guess = min(seconds + 2 * growth, *larger, float("inf"))
            expected = self._seconds[size] if is_known else guess
            if expected > allowed_seconds:
                if is_known:  # one slow measurement must not rule a size out for ever
                    self._seconds[size] *= _FADE
                break
            best, best_seconds = size, expected
            if not is_known or size >= most:
                break
            growth = max(0.0, expected - seconds) if seconds else expected / 2
            seconds = expected
        return best, best_seconds

    def is_known(self, size: int) -> bool:
        """Return whether a size has been measured, or is not among `sizes`."""
        return size in self._seconds or size not in self.sizes

    def measured(self, number: int, seconds: float) -> None:
        """Record how long a number of tokens took, which counts as the next larger size.

        The first time says nothing: kernels may have been compiled in it.
        """
        size = next((size for size in self.sizes if size >= number), None)
        if size in self._begun:
            self._seconds[size] = _mean(self._seconds.get(size), max(0.0, seconds))
        elif size is not None:
            self._begun.add(size)


class PrefillBudget:
    """Choose how many tokens of a prompt each step prefills.

    While streams decode, tokens of prompts either join their step (a mixed step), or a chunk of one
    prompt has a pass of its own: whichever prefills faster within `max_stall`.

    Args:
        chunk_size: tokens of the largest chunk, which is used while no stream decodes.
        max_stall: bound on the duration of a step that prefills, as a multiple of one that does
            not.
        unnoticed_seconds: a step may always take as long as this.
    """

    def __init__(
        self, chunk_size: int, max_stall: float, *, unnoticed_seconds: float = 0.0
    ) -> None:
        sizes = [chunk_size]
        while sizes[0] >= 2 * SMALLEST_CHUNK:
            sizes.insert(0, sizes[0] // 2)
        self._buckets = {"mixed": BucketSizes(MIXED_SIZES), "chunk": BucketSizes(sizes)}
        self._allowed_share = (max_stall - 1.0) * _MARGIN
        self._unnoticed = unnoticed_seconds * _MARGIN
        self._alone: dict[int, float] = {}
        self._steps_since_alone = 0

    def next(self, num_decoding: int, *, num_joining: int, num_pending: int) -> PrefillWork:
        """Return the next step's work on prompts; now and then none, to measure a step without.

        Args:
            num_decoding: streams that decode.
            num_joining: tokens of prompts that can join their step.
            num_pending: tokens that the first prompt has left.
        """
        mixed, chunks = self._buckets["mixed"], self._buckets["chunk"]
        if num_decoding == 0:
            return PrefillWork("chunk", chunks.sizes[-1])
        if num_decoding not in self._alone or self._steps_since_alone >= _TRUSTED_STEPS:
            return PrefillWork("mixed", 0)
        alone = self._alone[num_decoding]
        allowed = max(alone * self._allowed_share, self._unnoticed - alone)
        chunk, chunk_seconds = chunks.largest(allowed, num_pending)
        if not num_joining:
            return PrefillWork("chunk", chunk or chunks.sizes[0])
        num_mixed, mixed_seconds = mixed.largest(allowed, num_joining)
        num_mixed = num_mixed or mixed.sizes[0]
        if not mixed.is_known(num_mixed):
            return PrefillWork("mixed", num_mixed)
        by_chunk = min(chunk, num_pending) / (alone + chunk_seconds)
        by_mixed = min(num_mixed, num_joining) / (alone + mixed_seconds)
        if by_chunk > by_mixed or (chunk and not chunks.is_known(chunk)):
            return PrefillWork("chunk", chunk)
        return PrefillWork("mixed", num_mixed)

    def stepped(self, num_decoding: int, seconds: float, num_mixed: int = 0) -> None:
        """Record how long a decode step took that `num_mixed` tokens of prompts joined."""
        if num_mixed == 0:
            self._alone[num_decoding] = _mean(self._alone.get(num_decoding), seconds)
            self._steps_since_alone = 0
        else:
            self._steps_since_alone += 1
            extra = seconds - self._alone.get(num_decoding, 0.0)
            self._buckets["mixed"].measured(num_mixed, extra)

    def prefilled(self, num_tokens: int, seconds: float) -> None:
        """Record how long a chunk took."""
        self._buckets["chunk"].measured(num_tokens, seconds)


def _mean(old: float | None, new: float) -> float:
    return new if old is None else old + _NEW_SHARE * (new - old)
