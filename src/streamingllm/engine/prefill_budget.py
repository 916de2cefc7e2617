"""Tokens of a prompt that a step prefills while other streams decode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

SMALLEST_CHUNK = 16
MIXED_SIZES = (1, 2, 4, 8, 16, 32)

_NEW_SHARE = 0.25  # of a fresh measurement in the running mean
_MARGIN = 0.8  # single steps scatter around the mean
_FADE = 0.995
_TRUSTED_STEPS = 32


class PrefillWork(NamedTuple):
    """Work of a step on a prompt: a chunk in a pass of its own, or tokens in a mixed step."""

    how: Literal["chunk", "mixed"]
    num_tokens: int


class BucketSizes:
    """Find the largest of some sizes that fits into a time, by measuring how long each takes.

    A larger size is tried if the measurements of the two before it suggest that it fits.

    Args:
        sizes: ascending, each about twice the one before.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = sizes
        self._seconds: dict[int, float] = {}

    def largest(self, allowed_seconds: float) -> int:
        """Return the largest size that fits, 0 if none does."""
        best, seconds, growth = 0, 0.0, 0.0
        for size in self.sizes:
            is_known = size in self._seconds
            expected = self._seconds[size] if is_known else seconds + 2 * growth
            if expected > allowed_seconds:
                if is_known:  # one slow measurement must not rule a size out for ever
                    self._seconds[size] *= _FADE
                break
            best = size
            if not is_known:
                break
            growth = max(0.0, expected - seconds) if seconds else expected / 2
            seconds = expected
        return best

    def is_known(self, size: int) -> bool:
        """Return whether a size has been measured, or is not among `sizes`."""
        return size in self._seconds or size not in self.sizes

    def measured(self, size: int, seconds: float) -> None:
        """Record how long a size took; sizes outside `sizes` are ignored."""
        if size in self.sizes:
            self._seconds[size] = _mean(self._seconds.get(size), max(0.0, seconds))


class PrefillBudget:
    """Choose how many tokens of a prompt each step prefills.

    While streams decode, a prompt's tokens either join their step (a mixed step), or a chunk of the
    prompt has a pass of its own: whichever brings more tokens within `max_stall`.

    Args:
        chunk_size: tokens of the largest chunk, which is used while no stream decodes.
        max_stall: bound on the duration of a step that prefills, as a multiple of one that does
            not.
        max_mixed_tokens: tokens of a prompt that one mixed step can take.
    """

    def __init__(
        self, chunk_size: int, max_stall: float, max_mixed_tokens: int = MIXED_SIZES[-1]
    ) -> None:
        sizes = [chunk_size]
        while sizes[0] >= 2 * SMALLEST_CHUNK:
            sizes.insert(0, sizes[0] // 2)
        mixed = [size for size in MIXED_SIZES if size <= max_mixed_tokens]
        self._buckets = {"mixed": BucketSizes(mixed), "chunk": BucketSizes(sizes)}
        self._allowed_share = (max_stall - 1.0) * _MARGIN
        self._alone: dict[int, float] = {}
        self._steps_since_alone = 0

    def next(self, num_decoding: int, *, can_mix: bool) -> PrefillWork:
        """Return the next step's work on a prompt; now and then none, to measure a step without.

        Args:
            num_decoding: streams that decode.
            can_mix: whether the prompt's stream can join their step.
        """
        mixed, chunks = self._buckets["mixed"], self._buckets["chunk"]
        if num_decoding == 0:
            return PrefillWork("chunk", chunks.sizes[-1])
        if num_decoding not in self._alone or self._steps_since_alone >= _TRUSTED_STEPS:
            return PrefillWork("mixed", 0)
        allowed = self._alone[num_decoding] * self._allowed_share
        chunk = chunks.largest(allowed)
        if not can_mix:
            return PrefillWork("chunk", chunk or chunks.sizes[0])
        num_mixed = mixed.largest(allowed) or mixed.sizes[0]
        if mixed.is_known(num_mixed) and (chunk > num_mixed or not chunks.is_known(chunk)):
            return PrefillWork("chunk", chunk)
        return PrefillWork("mixed", num_mixed)

    def stepped(self, num_decoding: int, seconds: float, num_mixed: int = 0) -> None:
        """Record how long a decode step took that `num_mixed` tokens of a prompt joined."""
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
